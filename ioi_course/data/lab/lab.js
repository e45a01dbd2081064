// The lab: a prompt, a grid of heads, what happens to them, and the answer. It knows no model, only an engine:
// {info: {model, n_layers, n_heads, classes, colours, examples}, run(state) → a promise of what there is to show}.

export const START = { prompt: "", other: "", heads: [], only: false, how: "zero", amount: 1, at: [], stream: [] };
const HOWS = { keep: "as it is", zero: "zero", mean: "mean over ABC", other: "from the counterfactual" };
const LETTERS = { prompt: "p", other: "c", heads: "h", only: "only", how: "how", amount: "a", at: "at", stream: "s" };
const WAIT = 10000; // milliseconds without an answer before the reader is told

// A state as a string for an address, and back: as ioi_course.interventions.share and shared.
export function share(state) {
  const parts = Object.entries(LETTERS).flatMap(([name, letter]) => {
    const value = state[name];
    if (name !== "prompt" && JSON.stringify(value) === JSON.stringify(START[name])) return [];
    const text = name === "heads" || name === "stream" ? value.map((pair) => pair.join(".")).join("-")
      : name === "at" ? value.join("-") : name === "only" ? "1" : String(value);
    return [`${letter}=${encodeURIComponent(text)}`];
  });
  return parts.join("&");
}

export function shared(text) {
  const found = new URLSearchParams(text.replace(/^.*#/, "")), whole = (x) => /^\d+$/.test(x);
  if (!found.has("p")) return null;
  const pairs = (value) => value.split("-").map((pair) => pair.split(".")).filter((pair) => pair.length === 2 && pair.every(whole)).map((pair) => pair.map(Number));
  const get = (name) => found.get(LETTERS[name]) ?? "", amount = parseFloat(get("amount"));
  return {
    prompt: get("prompt"), other: get("other"), heads: pairs(get("heads")), only: get("only") === "1",
    how: get("how") in HOWS ? get("how") : "zero", amount: Math.abs(amount) <= 1 ? amount : 1,
    at: get("at").split("-").filter(whole).map(Number), stream: pairs(get("stream")),
  };
}

const number = (x) => (+x.toFixed(2) === 0 ? "0.00" : x.toFixed(2).replace("-", "−"));
const percent = (x) => (x >= 0.0995 ? `${Math.round(100 * x)} %` : `${(100 * x).toFixed(1)} %`);
const shown = (word) => (word.startsWith("<|") ? "BOS" : word.trim() || JSON.stringify(word).slice(1, -1));
export const headName = ([layer, head]) => `L${layer}H${head}`;
const same = (a, b) => a[0] === b[0] && a[1] === b[1];
const toggled = (list, item) => (list.some((each) => same(each, item)) ? list.filter((each) => !same(each, item)) : [...list, item].sort((a, b) => a[0] - b[0] || a[1] - b[1]));

// A grid of buttons that arrow keys walk through; one of them is in the order of the Tab key.
function gridOf(rows, columns, { label, head, corner, kind, onpress, onlook }) {
  const cells = [];
  const at = (r, c) => cells[r * columns + c];
  const go = (cell) => {
    cells.forEach((each) => { each.tabIndex = each === cell ? 0 : -1; });
    cell.focus();
  };
  const move = (event, r, c) => {
    const [dr, dc] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -c], End: [0, columns - 1 - c] }[event.key] ?? [];
    if (dr === undefined) return;
    event.preventDefault();
    go(at(Math.min(rows - 1, Math.max(0, r + dr)), Math.min(columns - 1, Math.max(0, c + dc))));
  };
  const body = Array.from({ length: rows }, (_, r) => h("div", { role: "row" }, h("span", { role: "rowheader", class: "edge" }, `${r}`),
    ...Array.from({ length: columns }, (_, c) => {
      const cell = h("button", { type: "button", role: "gridcell", tabindex: cells.length ? "-1" : "0", class: "cell", onclick: () => { go(cell); onpress(r, c); }, onkeydown: (event) => move(event, r, c), onfocus: () => onlook?.(r, c), onmouseenter: () => onlook?.(r, c) });
      cells.push(cell);
      return cell;
    })));
  const top = h("div", { role: "row", class: "top" }, h("span", { role: "columnheader", class: "edge" }, corner), ...Array.from({ length: columns }, (_, c) => h("span", { role: "columnheader", class: "edge" }, head(c))));
  const grid = h("div", { role: "grid", "aria-label": label, "aria-multiselectable": "true", class: `grid ${kind}`, style: `--columns: ${columns}` }, top, ...body);
  return { grid, each: (f) => cells.forEach((cell, i) => f(cell, Math.floor(i / columns), i % columns)) };
}

let count = 0;

// Put the lab into an element. options: {state, onstate(state), link(share) → an address, tours}. Returns {state, set}.
export function mountLab(root, engine, options = {}) {
  const { info } = engine, id = `ioi-lab-${count++}`, classes = info.classes ?? {};
  const first = { ...START, ...(options.state ?? { prompt: info.examples[0].prompt, other: info.examples[0].other }) };
  let state = first, view = null, history = [], busy = false, again = false, looked = null, from = null, revealed = false, tour = null, sliding = false;

  const field = (name, label) => {
    const input = h("input", { id: `${id}-${name}`, type: "text", autocomplete: "off", spellcheck: "false", onchange: () => update({ [name]: input.value, at: [], stream: [] }) });
    return { input, row: h("div", { class: "field" }, h("label", { for: input.id }, label), input) };
  };
  const prompt = field("prompt", "Prompt"), other = field("other", "Counterfactual");
  const examples = h("select", { id: `${id}-examples`, onchange: () => {
    const chosen = info.examples[+examples.value];
    if (examples.value !== "") update({ prompt: chosen.prompt, other: chosen.other, at: [], stream: [] });
  } }, h("option", { value: "" }, "your own"), ...info.examples.map((each, i) => h("option", { value: i }, `${each.prompt} …`)));
  const problem = h("p", { class: "problem", role: "alert" }), notes = h("div", { class: "notes" });

  const heads = gridOf(info.n_layers, info.n_heads, {
    label: "Heads: a row for each layer, a column for each head", head: (c) => `${c}`, corner: h("span", { class: "unseen" }, "layer"), kind: "heads",
    onpress: (layer, head) => update({ heads: toggled(state.heads, [layer, head]), ...(state.how === "keep" ? { how: "zero" } : {}) }),
    onlook: (layer, head) => { looked = [layer, head]; drawLooks(); checkTour(); },
  });
  const legend = h("div", { class: "legend" });
  const reveal = h("button", { type: "button", "aria-pressed": "false", onclick: () => { revealed = !revealed; draw(); } }, "Show the known classes");
  const hows = h("fieldset", { class: "hows" }, h("legend", {}, "What happens to them"), ...Object.entries(HOWS).map(([how, text]) => h("label", {}, h("input", { type: "radio", name: `${id}-how`, value: how, onchange: () => update({ how }) }), h("span", {}, text))));
  const slider = h("input", { id: `${id}-amount`, type: "range", min: "-1", max: "1", step: "0.05", oninput: () => update({ amount: +slider.value }, { keep: true }), onchange: () => { sliding = false; } });
  const amountText = h("output", { for: slider.id }), amountRow = h("div", { class: "field" }, h("label", { for: slider.id }, "How far"), slider, amountText);
  const only = h("input", { type: "checkbox", onchange: () => update({ only: only.checked, ...(state.how === "keep" ? { how: "mean" } : {}) }) });
  const places = h("fieldset", { class: "places" });
  const headPanel = h("div", { role: "tabpanel", id: `${id}-panel-heads`, "aria-labelledby": `${id}-tab-heads` },
    h("p", { class: "dim" }, "Click heads to choose them, or walk through the grid with the arrow keys and choose with the space bar."), heads.grid, legend, hows, amountRow,
    h("label", { class: "check" }, only, h("span", {}, "All heads but those chosen")), h("details", {}, h("summary", {}, "Only at some positions"), places));

  const streamBox = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "The residual stream, layer by position" }), streamText = h("p", { class: "dim" });
  let stream = null, map = null;
  const mapButton = h("button", { type: "button", onclick: fillMap }, "Try every cell");
  const streamPanel = h("div", { role: "tabpanel", id: `${id}-panel-stream`, "aria-labelledby": `${id}-tab-stream`, hidden: true },
    h("p", { class: "dim" }, "Each cell is the residual stream before a layer, at a token. A chosen cell is taken from the counterfactual run."), streamBox, streamText, mapButton);
  const panels = { heads: headPanel, stream: streamPanel };
  const tabs = Object.fromEntries([["heads", "Heads"], ["stream", "Residual stream"]].map(([name, text]) => [name, h("button", {
    type: "button", role: "tab", id: `${id}-tab-${name}`, "aria-controls": `${id}-panel-${name}`, onclick: () => openTab(name),
    onkeydown: (event) => { if (event.key === "ArrowRight" || event.key === "ArrowLeft") { event.preventDefault(); openTab(name === "heads" ? "stream" : "heads").focus(); } },
  }, text)]));
  function openTab(name) {
    for (const [each, tab] of Object.entries(tabs)) {
      tab.setAttribute("aria-selected", String(each === name));
      tab.tabIndex = each === name ? 0 : -1;
      panels[each].hidden = each !== name;
    }
    return tabs[name];
  }

  const undo = h("button", { type: "button", onclick: () => { if (history.length) { state = history.pop(); changed(); } } }, "Undo");
  const reset = h("button", { type: "button", onclick: () => update({ heads: [], only: false, how: "zero", amount: 1, at: [], stream: [] }) }, "Reset");
  const link = h("input", { type: "text", readonly: "", class: "link", "aria-label": "What leads back to this state", hidden: true, onfocus: () => link.select() });
  const copy = h("button", { type: "button", onclick: async () => {
    link.hidden = false;
    link.value = options.link ? options.link(share(state)) : share(state);
    link.focus();
    try { await navigator.clipboard.writeText(link.value); say("Copied."); } catch { say("Copy the marked text."); }
  } }, "Share");

  const sentence = h("p", { class: "sentence" }), diff = h("p", { class: "diff" }), doing = h("p", { class: "dim" });
  const table = h("table", { class: "tops" });
  const looksTitle = h("h3", {}, "Where a head looks"), looks = h("div", { class: "looks" });
  const status = h("p", { class: "unseen", role: "status" });
  const say = (text) => { status.textContent = text; };
  const result = h("section", { class: "result", "aria-labelledby": `${id}-answer` }, h("h2", { id: `${id}-answer` }, "The answer"), problem, sentence, diff, doing, h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "The next token" }, table), looksTitle, looks);
  const jump = h("button", { type: "button", class: "jump", onclick: () => result.scrollIntoView() }, "");
  const toursBox = h("section", { class: "tours", "aria-label": "Guided tours", hidden: !(options.tours && info.classes) });
  root.classList.add("ioi-lab");
  root.replaceChildren(toursBox,
    h("div", { class: "texts" }, h("div", { class: "field" }, h("label", { for: examples.id }, "Example"), examples), prompt.row, other.row, notes),
    h("div", { class: "stage" }, h("section", { class: "inside", "aria-label": "Inside the model" }, h("div", { role: "tablist", "aria-label": "What to change" }, ...Object.values(tabs)), headPanel, streamPanel,
      h("div", { class: "buttons" }, undo, reset, copy, info.classes ? reveal : null), link), result), jump, status);
  openTab("heads");

  // With `keep` it goes on with the change before it, and both are undone together: the way of a slider.
  function update(part, { keep = false } = {}) {
    const next = { ...state, ...part };
    if (JSON.stringify(next) === JSON.stringify(state)) return;
    if (!(keep && sliding)) history.push(state);
    sliding = keep;
    history = history.slice(-100);
    state = next;
    changed();
  }

  function changed() {
    draw();
    options.onstate?.(state);
    return ask();
  }

  // The newest state is what counts: while one is computed, others wait, and only the last of them is taken.
  async function ask() {
    again = busy;
    if (busy) return;
    busy = true;
    root.setAttribute("aria-busy", "true");
    try {
      do {
        again = false;
        const asked = state;
        try {
          view = await Promise.race([engine.run(asked), new Promise((_, no) => { setTimeout(no, WAIT, new Error(engine.silence ?? "There is no answer yet. Wait a little, or load the page again.")); })]);
          problem.textContent = "";
        } catch (error) { problem.textContent = error.message; }
      } while (again);
    } finally {
      busy = false;
      root.removeAttribute("aria-busy");
    }
    draw();
    if (view) say(problem.textContent || `${sentence.textContent} ${diff.textContent}`);
    checkTour();
  }

  function doingText() {
    const parts = [], heads = state.heads.map(headName);
    const what = state.only ? (heads.length ? `all heads but ${heads.join(", ")}` : "all heads") : heads.join(", ");
    if (what && state.how !== "keep" && state.amount) {
      const far = state.amount === 1 ? "" : state.amount > 0 ? `, ${Math.round(100 * state.amount)} % of the way` : `, pushed away from it by ${Math.round(-100 * state.amount)} %`;
      const at = state.at.length ? ` at ${state.at.map((i) => `“${shown(view?.words[i] ?? String(i))}”`).join(", ")}` : "";
      parts.push(`${what}${at}: ${HOWS[state.how]}${far}`);
    }
    if (state.stream.length) parts.push(`stream from the counterfactual: ${state.stream.map(([l, i]) => `layer ${l}, “${shown(view?.words[i] ?? String(i))}”`).join("; ")}`);
    return parts.length ? `Changed: ${parts.join(". ")}.` : "Nothing is changed yet.";
  }

  function draw() {
    prompt.input.value = state.prompt;
    other.input.value = state.other;
    const example = info.examples.findIndex((each) => each.prompt === state.prompt && each.other === state.other);
    examples.value = example < 0 ? "" : String(example);
    const chosen = new Set(state.heads.map(String));
    heads.each((cell, layer, head) => {
      const on = chosen.has(`${layer},${head}`), kind = revealed ? classes[`${layer}.${head}`] : undefined;
      cell.setAttribute("aria-selected", String(on));
      cell.setAttribute("aria-label", [headName([layer, head]), kind].filter(Boolean).join(", "));
      cell.title = [headName([layer, head]), kind].filter(Boolean).join(", ");
      cell.style.setProperty("--tint", kind ? info.colours[kind] : "");
      cell.classList.toggle("known", !!kind);
    });
    root.classList.toggle("only", state.only);
    reveal.setAttribute("aria-pressed", String(revealed));
    const byClass = Object.entries(classes).reduce((all, [place, kind]) => ({ ...all, [kind]: [...(all[kind] ?? []), place.split(".").map(Number)] }), {});
    legend.replaceChildren(...(revealed ? Object.entries(byClass).map(([kind, members]) => {
      const all = members.every((each) => chosen.has(String(each)));
      return h("button", { type: "button", "aria-pressed": String(all), style: `--tint: ${info.colours[kind]}`, onclick: () => update({ heads: all ? state.heads.filter((each) => !members.some((m) => same(m, each))) : members.reduce((list, m) => (chosen.has(String(m)) ? list : toggled(list, m)), state.heads), ...(state.how === "keep" ? { how: "zero" } : {}) }) }, h("i"), `${kind} (${members.length})`);
    }) : []));
    hows.querySelectorAll("input").forEach((input) => { input.checked = input.value === state.how; });
    slider.value = state.amount;
    slider.disabled = state.how === "keep";
    amountText.textContent = `${Math.round(100 * state.amount)} %`.replace("-", "−");
    only.checked = state.only;
    undo.disabled = !history.length;
    doing.textContent = doingText();
    if (view) drawView();
  }

  function drawView() {
    notes.replaceChildren(...view.notes.map((note) => h("p", {}, note)));
    const best = (column) => view.top.reduce((a, b) => (b[column] > a[column] ? b : a));
    const [was, is] = [best(1), best(2)];
    sentence.replaceChildren(`${state.prompt.trim()} `, h("mark", { class: is[0] === was[0] ? "" : "new" }, shown(is[0])), is[0] === was[0] ? "" : ` (before: ${shown(was[0])})`);
    diff.replaceChildren(...(view.diff ? [`Logit difference, ${view.answers[0]} over ${view.answers[1]}: `, h("strong", {}, `${number(view.diff[0])} → ${number(view.diff[1])}`)] : []));
    jump.textContent = `${shown(is[0])}${view.diff ? ` · ${number(view.diff[0])} → ${number(view.diff[1])}` : ""} ↓`;
    jump.setAttribute("aria-label", `To the answer: ${jump.textContent}`);
    const most = Math.max(...view.top.map((row) => Math.max(row[1], row[2])));
    const bar = (x, kind) => h("i", { class: kind, style: `--size: ${(100 * x) / most}%` });
    table.replaceChildren(h("caption", { class: "unseen" }, "Probabilities of the next token, without and with the change"), h("thead", {}, h("tr", {}, ...["next token", "before", "now"].map((text) => h("th", { scope: "col" }, text)), h("td", {}))),
      h("tbody", {}, ...view.top.slice(0, 8).map(([token, p, q]) => h("tr", {}, h("th", { scope: "row" }, shown(token)), h("td", {}, percent(p)), h("td", {}, percent(q)), h("td", { class: "bars" }, bar(p, "was"), bar(q, "now"))))));
    const named = Object.entries(view.pos).reduce((all, [role, i]) => ({ ...all, [i]: [...(all[i] ?? []), role] }), {});
    const placesKey = JSON.stringify([view.words, state.at]);
    if (places.dataset.key !== placesKey) {
      places.dataset.key = placesKey;
      const kept = places.contains(document.activeElement) ? document.activeElement.value : null;
      places.replaceChildren(h("legend", {}, "Positions (none chosen: all)"), ...view.words.map((word, i) => h("label", {}, h("input", { type: "checkbox", value: i, checked: state.at.includes(i), onchange: () => update({ at: state.at.includes(i) ? state.at.filter((each) => each !== i) : [...state.at, i].sort((a, b) => a - b) }) }), h("span", {}, shown(word), named[i] ? h("small", {}, named[i].join(" ")) : null))));
      if (kept !== null) places.querySelector(`input[value="${kept}"]`)?.focus();
    }
    drawStream(named);
    drawLooks();
  }

  function drawStream(named) {
    const key = JSON.stringify(view.words);
    if (streamBox.dataset.key !== key) {
      streamBox.dataset.key = key;
      map = null;
      stream = gridOf(info.n_layers, view.words.length, { label: "The residual stream: a row for each layer, a column for each token", head: (c) => h("span", {}, `${shown(view.words[c])} ${named[c]?.join(" ") ?? ""}`), corner: h("span", { class: "unseen" }, "layer"), kind: "stream", onpress: (layer, place) => update({ stream: toggled(state.stream, [layer, place]) }) });
      streamBox.replaceChildren(stream.grid);
    }
    const chosen = new Set(state.stream.map(String));
    stream.each((cell, layer, place) => {
      const tried = map?.[`${layer},${place}`];
      cell.setAttribute("aria-selected", String(chosen.has(`${layer},${place}`)));
      cell.setAttribute("aria-label", `before layer ${layer}, “${shown(view.words[place])}”${tried === undefined ? "" : `, logit difference ${number(tried)}`}`);
      cell.title = cell.getAttribute("aria-label");
      const share = tried === undefined || !view.diff ? 0 : Math.min(1, Math.abs(tried - view.diff[0]) / Math.max(0.1, 2 * Math.abs(view.diff[0])));
      cell.style.setProperty("--share", `${Math.round(100 * share)}%`);
    });
    streamText.textContent = map ? "The stronger the colour, the more that cell alone moves the logit difference." : "";
    mapButton.disabled = !view.diff;
  }

  // Every cell by itself, one after the other; a cell in which nothing differs yet costs as much as any other.
  async function fillMap() {
    const asked = { ...state, heads: [], only: false, at: [] }, words = JSON.stringify(view.words), found = {};
    mapButton.disabled = true;
    for (let layer = 0; layer < info.n_layers; layer++) {
      for (let place = 0; place < view.words.length; place++) {
        try {
          found[`${layer},${place}`] = (await engine.run({ ...asked, stream: [[layer, place]] }, { look: true })).diff[1];
        } catch (error) {
          problem.textContent = error.message;
          mapButton.disabled = false;
          return;
        }
        if (JSON.stringify(view.words) !== words || state.prompt !== asked.prompt || state.other !== asked.other) { mapButton.disabled = false; return; }
      }
      map = { ...found };
      draw();
    }
    mapButton.disabled = false;
    say("Every cell has been tried.");
  }

  function drawLooks() {
    if (!view) return;
    if (!looked) {
      looks.replaceChildren(h("p", { class: "dim" }, "Point at a head, or go to it with the arrow keys."));
      return;
    }
    const n = view.words.length, query = from === null || from >= n ? view.pos.END : from, kind = revealed ? classes[looked.join(".")] : undefined;
    const [old, now] = [false, true].map((changed) => Array.from(view.pattern(looked[0], looked[1], changed).slice(query * n, query * n + n)));
    const roles = Object.entries(view.pos).reduce((all, [role, i]) => ({ ...all, [i]: [...(all[i] ?? []), role] }), {});
    looksTitle.textContent = `Where ${headName(looked)}${kind ? `, ${kind} head,` : ""} looks from “${shown(view.words[query])}”`;
    const best = now.indexOf(Math.max(...now)), moved = now.some((x, i) => Math.abs(x - old[i]) >= 0.02);
    const strip = h("fieldset", { class: "strip" }, h("legend", { class: "unseen" }, "Token that looks"), ...view.words.map((word, i) => h("label", { style: `--p: ${now[i]}` },
      h("input", { type: "radio", name: `${id}-from`, value: i, checked: i === query, onchange: () => { from = i; drawLooks(); looks.querySelector(`input[value="${i}"]`).focus(); } }),
      h("span", {}, shown(word), h("small", {}, [roles[i]?.join(" "), now[i] >= 0.05 ? percent(now[i]) : ""].filter(Boolean).join(" · "))))));
    looks.replaceChildren(strip, h("p", { class: "dim" }, `Most at “${shown(view.words[best])}”, ${percent(now[best])}${moved ? `; without the change ${percent(old[best])} there` : ""}. Choose a token to see where the head looks from it.`));
  }

  // Guided tours: a list of steps on top of the lab, each with a sentence and a test of what the reader did.

  function drawTours() {
    if (toursBox.hidden) return;
    if (!tour) {
      toursBox.replaceChildren(h("h2", {}, "Guided tours"), h("ul", {}, ...options.tours.map((each) => h("li", {}, h("button", { type: "button", onclick: () => startTour(each.id) }, each.title)))));
      return;
    }
    const { steps, title } = tour.plan, step = steps[tour.step], last = tour.step === steps.length - 1, done = tour.done;
    const text = typeof step.text === "function" ? step.text(helper()) : step.text;
    const next = h("button", { type: "button", class: "next", onclick: () => (last ? endTour() : goTo(tour.step + 1)) }, last ? "Finish" : "Next");
    toursBox.replaceChildren(...[h("h2", {}, title), h("p", { class: "dim" }, `Step ${tour.step + 1} of ${steps.length}`), h("p", { class: "said" }, text),
      step.test ? h("p", { class: done ? "done" : "todo" }, done ? `✓ ${step.well}` : `○ ${step.todo}`) : null,
      step.score ? h("p", { class: "score" }, step.score(helper())) : null,
      h("div", { class: "buttons" }, h("button", { type: "button", disabled: !tour.step, onclick: () => goTo(tour.step - 1) }, "Back"), next, h("button", { type: "button", onclick: endTour }, "Leave the tour"))].filter(Boolean));
  }

  function helper() {
    const of = (kind) => Object.entries(classes).filter(([, each]) => each === kind).map(([place]) => place.split(".").map(Number));
    const chosen = (kind) => of(kind).filter((head) => state.heads.some((each) => same(each, head))).length;
    return { state, view, looked, revealed, of, chosen, all: (kind) => chosen(kind) === of(kind).length, number, headName, classes };
  }

  function startTour(name) {
    const plan = options.tours?.find((each) => each.id === name);
    if (!plan || !info.classes) return;
    tour = { plan, step: 0, done: false };
    goTo(0);
  }

  function goTo(step) {
    tour = { ...tour, step, done: false };
    const { set, reveal: show } = tour.plan.steps[step];
    if (show !== undefined) revealed = show;
    looked = null;
    drawTours();
    if (set) update(typeof set === "function" ? set(helper()) : set);
    draw();
    toursBox.querySelector("h2").tabIndex = -1;
    toursBox.querySelector("h2").focus({ preventScroll: true });
    checkTour();
  }

  function endTour() {
    tour = null;
    drawTours();
    toursBox.querySelector("button")?.focus();
  }

  function checkTour() {
    if (!tour || busy || !view || problem.textContent) return;
    const step = tour.plan.steps[tour.step], done = (tour.done && !step.score) || !!step.test?.(helper());
    if (done !== tour.done || step.score || typeof step.text === "function") {
      const focused = toursBox.contains(document.activeElement);
      if (done && !tour.done) say(step.well);
      tour = { ...tour, done };
      drawTours();
      if (focused) toursBox.querySelector(".next").focus();
    }
  }

  drawTours();
  const ready = changed().then(() => { if (options.tour) startTour(options.tour); });
  return { ready, get state() { return state; }, get view() { return view; }, set: (next) => update(next), startTour };
}
