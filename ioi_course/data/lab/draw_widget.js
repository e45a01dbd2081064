// Draw the circuit in a notebook: the board on one side of a wire, ioi_course.drawing on the other.

const QUIET = "The notebook's kernel has not answered yet. If it is busy, wait; if there is none, run the cell that made the drawing again.";

function render({ model, el }) {
  const waiting = new Map(), box = document.createElement("div");
  let number = 0;
  function hear({ id, answer, error }) {
    const asked = waiting.get(id);
    waiting.delete(id);
    if (asked) (error ? asked.failed(new Error(error)) : asked.done(answer));
  }
  const game = {
    ...model.get("info"), silence: QUIET, slow: true,
    ask: (edge) => new Promise((done, failed) => {
      waiting.set(++number, { done, failed });
      try { model.send({ id: number, edge }); } catch { failed(new Error(QUIET)); }
    }),
  };
  model.on("msg:custom", hear);
  el.append(box);
  const board = mountDraw(box, game, { drawn: model.get("drawn"), ondrawn: (edges) => {
    if (JSON.stringify(edges) === JSON.stringify(model.get("drawn"))) return;
    model.set("drawn", edges);
    model.save_changes();
  } });
  const follow = () => board.set(model.get("drawn"));
  model.on("change:drawn", follow);
  return () => {
    model.off("msg:custom", hear);
    model.off("change:drawn", follow);
  };
}

export default { render };
