// The lab in a notebook: the front end on one side of a wire, ioi_course.lab on the other.

const SILENCE = "The notebook's kernel does not answer. Run the cell that made the lab again; without a kernel, the lab on the course's website runs in the browser alone.";

function render({ model, el }) {
  const waiting = new Map(), box = document.createElement("div");
  let number = 0;
  // A pattern comes as two blocks of bytes, before and after, [layer, head, query, key], 255 for one.
  function hear({ id, view, error }, buffers) {
    const asked = waiting.get(id);
    waiting.delete(id);
    if (!asked) return;
    if (error) return asked.failed(new Error(error));
    const bytes = buffers[0], all = new Uint8Array(bytes.buffer ?? bytes, bytes.byteOffset ?? 0, bytes.byteLength), n = view.words.length;
    const pattern = (layer, head, changed) => {
      const from = ((changed ? info.n_layers : 0) + layer) * info.n_heads * n * n + head * n * n;
      return Array.from(all.subarray(from, from + n * n), (x) => x / 255);
    };
    asked.done({ ...view, pattern });
  }
  const info = model.get("info"), state = () => ({ ...START, ...model.get("state") });
  const engine = {
    info, silence: SILENCE,
    run: (asked) => new Promise((done, failed) => {
      waiting.set(++number, { done, failed });
      try { model.send({ id: number, state: asked }); } catch { failed(new Error(SILENCE)); }
    }),
  };
  model.on("msg:custom", hear);
  el.append(box);
  const lab = mountLab(box, engine, { state: state(), tours: TOURS, onstate: (next) => {
    if (JSON.stringify(next) === JSON.stringify(state())) return;
    model.set("state", next);
    model.save_changes();
  } });
  const follow = () => lab.set(state());
  model.on("change:state", follow);
  return () => {
    model.off("msg:custom", hear);
    model.off("change:state", follow);
  };
}

export default { render };
