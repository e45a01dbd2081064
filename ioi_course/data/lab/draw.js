// Draw the circuit: boxes of classes, edges that the reader draws, and an answer to each. It knows no model, only a game:
// {model, classes, edges, source, prompts, ask(edge) → a promise of {edge, verdict, says}}; an edge is [sender, receiver, via].

const INPUTS = { q: "queries", k: "keys", v: "values" };
const SAID = { holds: "It holds", "one more": "One more", silent: "Silent by itself", refuted: "Refuted", "cannot be": "Cannot be" };
const SHOWN = ["holds", "one more", "silent"]; // verdicts that make an arrow
const PATIENCE = 15000; // milliseconds without an answer before the reader is told

const keyOf = (edge) => edge.join("\n");
const nameOf = ([sender, receiver, via]) => `${sender} → ${receiver}${INPUTS[via] ? `, ${INPUTS[via]}` : ""}`;
let boards = 0;

// Arrows beside a column of boxes, each in a lane of its own: the shorter, the nearer. boxes: name → {top, height}.
export function arrowsOf(edges, boxes, left, width) {
  const order = Object.keys(boxes), at = (name) => order.indexOf(name);
  const span = ([a, b]) => [Math.min(at(a), at(b)), Math.max(at(a), at(b))];
  const length = (edge) => span(edge)[1] - span(edge)[0];
  const sorted = [...edges].sort((a, b) => length(a) - length(b) || at(a[0]) - at(b[0])), lanes = [];
  const lane = new Map(sorted.map((edge) => {
    const [low, high] = span(edge);
    let i = lanes.findIndex((taken) => taken.every(([a, b]) => high < a || b < low));
    if (i < 0) i = lanes.push([]) - 1;
    lanes[i].push([low, high]);
    return [edge, i];
  }));
  const step = Math.min(22, (width - 16) / Math.max(1, lanes.length));
  const slot = (name, edge, end, from) => { // arrows come in above the middle of a box and leave below it
    const here = sorted.filter((each) => each[end] === name).sort((a, b) => (end ? lane.get(a) - lane.get(b) : lane.get(b) - lane.get(a)));
    return boxes[name].top + boxes[name].height * (from + (0.42 * (here.indexOf(edge) + 1)) / (here.length + 1));
  };
  return sorted.map((edge) => {
    const x = left + 12 + step * (lane.get(edge) + 0.5), y0 = slot(edge[0], edge, 0, 0.5), y1 = slot(edge[1], edge, 1, 0.08);
    const bend = Math.min(7, Math.abs(y1 - y0) / 2, x - left - 2), way = y1 > y0 ? bend : -bend;
    const path = `M${left} ${y0}H${x - bend}Q${x} ${y0} ${x} ${y0 + way}V${y1 - way}Q${x} ${y1} ${x - bend} ${y1}H${left + 1}`;
    return { edge, path, tip: `M${left} ${y1}l7 -3.6v7.2z`, x, y: (y0 + y1) / 2 };
  });
}

// Put the board into an element. options: {drawn, ondrawn(edges)}. Returns {ready, set(edges), drawn}.
export function mountDraw(root, game, options = {}) {
  const id = `ioi-draw-${boards++}`, names = game.classes.map((each) => each.name), known = new Set(game.edges.map(keyOf));
  const answers = new Map(); // key of an edge: what was answered
  let drawn = [], shown = [], busy = false, next = 0, wanted = null;

  const option = (name) => h("option", { value: name }, name);
  const from = h("select", { id: `${id}-from`, onchange: draw }, ...names.map(option));
  const to = h("select", { id: `${id}-to`, onchange: draw }, ...names.map(option), option("logits"));
  const radios = Object.entries(INPUTS).map(([via, text]) => h("label", {}, h("input", { type: "radio", name: `${id}-via`, value: via, checked: via === "q" }), h("span", {}, text)));
  const inputs = h("fieldset", { class: "hows" }, h("legend", {}, "It changes their"), ...radios);
  const residual = h("p", { class: "dim" }, "The logits read the whole stream.");
  const add = h("button", { type: "button", class: "add", onclick: () => put() }, "Draw the edge");
  const field = (select, text) => h("div", { class: "field" }, h("label", { for: select.id }, text), select);
  const form = h("div", { class: "form" }, h("div", { class: "ends" }, field(from, "From"), field(to, "To")), inputs, residual, add);

  const boxes = new Map(game.classes.map((each) => [each.name, h("button", { type: "button", class: "class", style: `--tint: ${each.colour}`, onclick: () => choose(each.name) },
    h("b", {}, each.name), h("span", { class: "dim" }, ` at ${each.at}`), h("span", { class: "who" }, each.heads.join(" ")))]));
  boxes.set("logits", h("button", { type: "button", class: "class goal", onclick: () => choose("logits") }, h("b", {}, "logits"), h("span", { class: "dim" }, " at END")));
  const arrows = h("svg", { "aria-hidden": "true" }), board = h("div", { class: "classes", role: "group", "aria-label": "Classes of heads, in the order of their layers" }, ...boxes.values(), arrows);

  const count = h("p", { class: "count" }), status = h("div", { class: "answer", role: "status" }), list = h("ol", { class: "list", reversed: true });
  const hint = h("p", { class: "dim" });
  const undo = h("button", { type: "button", onclick: () => { if (drawn.length && !busy) change(drawn.slice(0, -1), "The last edge is gone."); } }, "Undo");
  const rest = h("button", { type: "button", onclick: showRest }, "Show the rest");
  const reset = h("button", { type: "button", onclick: () => { if (!busy) { shown = []; change([], "The board is empty."); } } }, "Reset");
  const title = h("h3", { id: `${id}-list` }, "What you drew");
  root.classList.add("ioi-lab", "ioi-draw");
  root.replaceChildren(h("div", { class: "draw" }, h("div", { class: "side" }, hint, board, legend(), game.prompts ? h("p", { class: "dim" }, `Measured on ${game.model}, on ${game.prompts} prompts.`) : null),
    h("div", { class: "side" }, form, status, count, h("div", { class: "buttons" }, undo, rest, reset), title, list)));

  function legend() {
    const line = (kind, text) => h("span", {}, h("svg", { class: "sample", viewBox: "0 0 30 8", "aria-hidden": "true" }, h("path", { class: `way ${kind}`, d: "M1 4H29" })), ` ${text}`);
    return h("p", { class: "legend dim" }, line("holds", "counts"), line("silent", "in the circuit, silent by itself"), line("one-more", "counts, not in the circuit"), h("span", {}, "q k v: queries, keys, values"));
  }

  // A click on a box says who sends, the next one who hears it.
  function choose(name) {
    if (next === 0 && name === "logits") { tell("The logits come last: they send nothing. Choose who sends."); return; }
    (next === 0 ? from : to).value = name;
    next = 1 - next;
    draw();
  }

  function draw() {
    const goal = to.value === "logits";
    inputs.hidden = goal;
    residual.hidden = !goal;
    hint.textContent = next === 0 ? "Choose who sends: click a box, or use the lists." : `From ${from.value}: now choose who hears it.`;
    for (const [name, box] of boxes) {
      box.classList.toggle("from", name === from.value);
      box.classList.toggle("to", name === to.value);
    }
    const own = drawn.filter((edge) => known.has(keyOf(edge)) && SHOWN.includes(answers.get(keyOf(edge))?.verdict)).length;
    const all = [...drawn, ...shown].filter((edge) => answers.has(keyOf(edge))), more = drawn.filter((edge) => answers.get(keyOf(edge))?.verdict === "one more").length;
    count.textContent = [`${own} of ${known.size} edges of the circuit found`, more ? `${more} more ${more === 1 ? "counts" : "count"}` : "", shown.length ? `${shown.length} shown` : ""].filter(Boolean).join("; ") + ".";
    title.hidden = !all.length;
    undo.disabled = !drawn.length;
    reset.disabled = !drawn.length && !shown.length;
    rest.disabled = own + shown.length >= known.size;
    list.replaceChildren(...[...all].reverse().map((edge) => {
      const it = answers.get(keyOf(edge)), kind = it.verdict.replace(" ", "-");
      const head = [h("b", {}, nameOf(edge)), " ", h("span", { class: `verdict ${kind}` }, SAID[it.verdict])], said = h("p", {}, it.says);
      return h("li", {}, ...(shown.includes(edge) ? [h("details", {}, h("summary", {}, ...head, h("span", { class: "dim" }, " shown")), said)] : [...head, said]));
    }));
    list.start = all.length;
    place();
  }

  // The arrows stand where the boxes are, so they are placed anew when these move.
  function place() {
    const frame = board.getBoundingClientRect(), spots = {};
    for (const [name, box] of boxes) {
      const own = box.getBoundingClientRect();
      spots[name] = { top: own.top - frame.top, height: own.height };
    }
    const left = boxes.get("logits").offsetLeft + boxes.get("logits").offsetWidth, width = frame.width - left;
    arrows.setAttribute("viewBox", `0 0 ${Math.max(1, frame.width)} ${Math.max(1, frame.height)}`);
    const seen = [...drawn, ...shown].filter((edge) => SHOWN.includes(answers.get(keyOf(edge))?.verdict));
    arrows.replaceChildren(...arrowsOf(seen, spots, left, width).flatMap(({ edge, path, tip, x, y }) => {
      const kind = `${edge[2]} ${answers.get(keyOf(edge)).verdict.replace(" ", "-")}`;
      return [h("path", { class: `way ${kind}`, d: path, "data-edge": nameOf(edge) }), h("path", { class: `tip ${kind}`, d: tip }),
        ...(INPUTS[edge[2]] ? [h("text", { class: edge[2], x, y: y + 4, "text-anchor": "middle" }, edge[2])] : [])];
    }));
  }

  const tell = (...parts) => status.replaceChildren(...parts.map((part) => (typeof part === "string" ? h("p", {}, part) : part)));

  async function ask(edge) {
    const known = answers.get(keyOf(edge));
    if (known) return known;
    const slow = setTimeout(() => tell(game.silence ?? "There is no answer yet."), PATIENCE);
    try {
      const answer = await game.ask(edge);
      answers.set(keyOf(edge), answer);
      return answer;
    } finally { clearTimeout(slow); }
  }

  // One question after the other; the answers come into view as they arrive.
  async function working(work) {
    if (busy) return;
    busy = true;
    root.setAttribute("aria-busy", "true");
    try { await work(); } catch (error) { tell(h("p", { class: "problem", role: "alert" }, error.message)); } finally {
      busy = false;
      root.removeAttribute("aria-busy");
      draw();
    }
    if (wanted) set(wanted);
  }

  function put() {
    const edge = [from.value, to.value, to.value === "logits" ? "residual" : inputs.querySelector("input:checked").value];
    if (drawn.some((each) => keyOf(each) === keyOf(edge))) { tell(`You have drawn ${nameOf(edge)} already.`); return null; }
    return working(async () => {
      tell(`Measuring ${nameOf(edge)} …`);
      const it = await ask(edge), kind = it.verdict.replace(" ", "-");
      shown = shown.filter((each) => keyOf(each) !== keyOf(edge));
      drawn = [...drawn, edge];
      options.ondrawn?.(drawn);
      tell(h("p", {}, h("b", {}, nameOf(edge)), " ", h("span", { class: `verdict ${kind}` }, SAID[it.verdict])), it.says);
    });
  }

  function change(edges, text) {
    drawn = edges;
    options.ondrawn?.(drawn);
    tell(text);
    draw();
  }

  function showRest() {
    const have = new Set([...drawn, ...shown].map(keyOf)), left = game.edges.filter((edge) => !have.has(keyOf(edge)));
    return working(async () => {
      for (const [i, edge] of left.entries()) {
        tell(`Measuring ${i + 1} of ${left.length} …`);
        await ask(edge);
        shown = [...shown, edge];
        if (game.slow) draw();
      }
      tell(`These are the edges of the circuit (${game.source}). Those that do not count by themselves are dashed.`);
    });
  }

  // What somebody else has drawn: ask for what is not known yet.
  function set(edges) {
    wanted = busy ? edges : null;
    if (busy || JSON.stringify(edges) === JSON.stringify(drawn)) return Promise.resolve();
    return working(async () => {
      for (const edge of edges) await ask(edge);
      drawn = edges.map((edge) => [...edge]);
    });
  }

  to.selectedIndex = Math.min(1, names.length);
  tell("The answer to an edge appears here.");
  new ResizeObserver(place).observe(board);
  draw();
  return { ready: set(options.drawn ?? []), set, get drawn() { return drawn; } };
}
