// The site's first screen: the model's answer to one sentence, and a button that takes out the heads that write it.
// The model comes when the button is pressed for the first time; what is shown before that was computed with the page.

const SHOWN = 3; // words

function mountFirst(root, config) {
  const { prompt, other, before, diff } = config.first;
  const of = (...kinds) => Object.keys(config.classes).filter((place) => kinds.includes(config.classes[place])).map((place) => place.split(".").map(Number));
  const writers = of("name mover"), all = of("name mover", "backup name mover");
  const steps = [
    { heads: [], next: "Take out the heads that write it" },
    { heads: writers, next: "Take out their backups, too" },
    { heads: all, next: "Put them all back" },
  ];
  const answer = before[0][0];
  let step = 0, engine = null, busy = false;

  const rows = h("tbody"), said = h("p", { class: "ioi-live-said", role: "status" });
  const button = h("button", { type: "button", class: "btn btn-lg btn-primary", onclick: press }, steps[0].next);
  const on = h("a", {}, "Go on in the lab");
  root.replaceChildren(
    h("table", {}, h("caption", {}, "What the model says next"), rows), said, h("p", { class: "ioi-live-do" }, button, on),
    h("p", { class: "ioi-live-model" }, "Live: ", h("strong", {}, config.model), ", a small practice model with the published circuit written into it, never GPT-2 itself. ",
      `The first press fetches it (${config.megabytes} MB); then it runs in this page.`));
  root.hidden = false;
  draw(before.map(([word, p]) => [word, p, p]), [diff, diff]);

  async function press() {
    if (busy) return;
    busy = true;
    const next = (step + 1) % steps.length;
    button.setAttribute("aria-disabled", "true");
    root.setAttribute("aria-busy", "true");
    try {
      if (!engine) said.textContent = `Fetching the model (${config.megabytes} MB) …`;
      engine ??= await loadEngine(config);
      const view = await engine.run({ ...START, prompt, other, heads: steps[next].heads, how: "zero" });
      step = next;
      draw(view.top, view.diff);
    } catch (error) {
      said.replaceChildren(`The model cannot run here. ${error.message} `, h("a", { href: config.circuit }, "The circuit, head by head"), " can be read without it.");
    } finally {
      busy = false;
      button.removeAttribute("aria-disabled");
      root.removeAttribute("aria-busy");
    }
  }

  // top: [word, probability before, now]
  function draw(top, [was, is]) {
    const now = [...top].sort((a, b) => b[2] - a[2]), says = now[0][0];
    const words = [top.find(([word]) => word === answer), ...now.filter(([word]) => word !== answer)].slice(0, SHOWN);
    rows.replaceChildren(...words.map(([word, p, q]) => h("tr", {}, h("th", { scope: "row" }, shown(word)), h("td", {}, percent(q)),
      h("td", { class: "ioi-live-bar" }, h("i", { style: `width: ${100 * p}%` }), h("i", { class: "now", style: `width: ${100 * q}%` })))));
    const still = says === answer ? `it still says “${shown(says)}”` : `it says “${shown(says)}”`, change = `${number(was)} → ${number(is)}`;
    const whose = { 0: "", 1: `Without its ${writers.length} name movers`, 2: `Without name movers and backups (${all.length} heads)` }[step];
    said.textContent = step ? `${whose} ${still}. Logit difference, right name over wrong: ${change}.` : `It says “${shown(says)}”. Logit difference, right name over wrong: ${number(is)}.`;
    button.textContent = steps[step].next;
    on.href = `lab.html#${share({ ...START, prompt, other, heads: steps[step].heads })}`;
  }
}

{
  const root = document.getElementById("ioi-lab");
  if (root && canRun()) mountFirst(root, CONFIG);
}
