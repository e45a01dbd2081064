// The circuit, head by head: what the page shows of a head in a prompt, and the table of all heads.

const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const number = (x) => x === null ? "" : +x.toFixed(2) === 0 ? "0.00" : x.toFixed(2).replace("-", "−");
const signed = (x) => (+x.toFixed(2) > 0 ? "+" : "") + number(x);
const shown = (token) => token.startsWith("<|") ? "BOS" : token.trim() || JSON.stringify(token).slice(1, -1);
const mean = (xs) => xs.reduce((a, b) => a + b, 0) / xs.length;

function make(tag, text, attributes = {}) {
  const svg = ["rect", "text", "title"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function table(id, caption, columns, rows) {
  const head = make("tr"), body = make("tbody"), top = make("thead");
  columns.forEach(([name, kind]) => {
    const cell = make("th", undefined, {scope: "col", class: kind || ""});
    cell.append(make("span", name, kind === "bar" ? {class: "unseen"} : {}));
    head.append(cell);
  });
  for (const {cells, on} of rows) {
    const row = make("tr", undefined, on ? {class: "on"} : {});
    cells.forEach((cell, i) => row.append(cell instanceof Node ? cell : i ? make("td", cell, {class: columns[i][1] || ""}) : make("th", cell, {scope: "row"})));
    body.append(row);
  }
  top.append(head);
  at(id).replaceChildren(make("caption", caption, {class: "unseen"}), top, body);
}

function bar(value, low, high) {  // from zero to the value, on a scale from low to high
  const share = (x) => 100 * (x - low) / (high - low);
  const from = share(Math.min(value, 0)), cell = make("td", undefined, {class: "bar"}), mark = make("i");
  mark.style.cssText = `--from: ${from}%; --size: ${share(Math.max(value, 0)) - from}%; --fill: var(--${value < 0 ? "down" : "up"})`;
  cell.append(mark);
  return cell;
}

function rolesAt(prompt) {
  return prompt.tokens.map((_, i) => Object.keys(prompt.pos).filter((role) => prompt.pos[role] === i).join(" "));
}

function drawStrip(row, prompt, role, place) {
  const names = rolesAt(prompt);
  at("strip").replaceChildren(...prompt.tokens.map((token, i) => {
    const p = i <= place ? row[i] / 1000 : 0;
    const word = make("span", shown(token), i === place ? {class: "from"} : {});
    word.style.setProperty("--p", p);
    word.append(make("small", [names[i], p >= .05 ? `${Math.round(100 * p)} %` : ""].filter(Boolean).join(" · ")));
    return word;
  }));
}

function drawPattern(rows, prompt, place, label) {
  const n = prompt.tokens.length, cell = 16, names = rolesAt(prompt), words = prompt.tokens.map(shown);
  const written = words.map((word, i) => names[i] ? `${word} ${names[i]}` : word);
  const room = 12 + 7 * Math.max(...written.map((word) => word.length));
  const svg = at("pattern"), size = room + n * cell + 2;
  svg.setAttribute("viewBox", `0 0 ${size} ${size}`);
  svg.setAttribute("aria-label", label);
  const parts = [];
  written.forEach((word, i) => {
    const middle = room + (i + .5) * cell, kind = names[i] ? "role" : "";
    parts.push(make("text", word, {x: room - 5, y: middle + 4, "text-anchor": "end", class: kind}));
    parts.push(make("text", word, {x: 0, y: 0, class: kind, transform: `translate(${middle + 4} ${room - 5}) rotate(-90)`}));
  });
  rows.forEach((row, dest) => row.forEach((p, src) => {
    const square = make("rect", undefined, {x: room + src * cell, y: room + dest * cell, width: cell, height: cell, "fill-opacity": p / 1000});
    square.append(make("title", `${words[dest]} looks at ${words[src]}: ${number(p / 1000)}`));
    parts.push(square);
  }));
  parts.push(make("rect", undefined, {class: "frame", x: room, y: room, width: n * cell, height: n * cell}));
  parts.push(make("rect", undefined, {class: "acts", x: room, y: room + place * cell, width: n * cell, height: cell}));
  svg.replaceChildren(...parts);
  table("tokens", "Attention by token", [["from"], ["looks most at", "text"], ["attention"]], rows.map((row, dest) => {
    const best = row.indexOf(Math.max(...row));
    return {cells: [`${dest} ${written[dest]}`, `${best} ${written[best]}`, number(row[best] / 1000)], on: dest === place};
  }));
}

function drawEffects(head, view, i) {
  const directs = head.views.map((each) => each.direct), all = mean(directs);
  const low = Math.min(0, ...directs), high = Math.max(0, ...directs);
  at("direct").textContent = signed(view.direct);
  table("directs", "Direct effect in each prompt, in logits", [["prompt"], ["logits"], ["as a bar", "bar"]], [
    ...directs.map((x, j) => ({cells: [`${j + 1} ${data.prompts[j].IO}`, signed(x), bar(x, low, high || 1)], on: i === j})),
    {cells: ["mean", signed(all), bar(all, low, high || 1)]},
  ]);
}

function drawAblation(head, view, i, place) {
  const before = data.prompts[i].diff, average = mean(head.views.map((each, j) => each.ablated - data.prompts[j].diff));
  const also = place === "END" ? ` If nothing else reacted, it would be ${number(view.naive)}.` : "";
  const result = make("strong", `${number(before)} → ${number(view.ablated)}`, {class: "big"});
  at("without").replaceChildren("Logit difference ", result, ` (${signed(view.ablated - before)}; mean over the prompts ${signed(average)}).${also}`);
  table("others", "Heads whose direct effects change most", [["head"], ["class", "text"], ["before"], ["after"], ["change"]],
    view.others.map(([name, kind, x, y]) => ({cells: [name, kind || "none", number(x), number(y), signed(y - x)]})));
}

function show() {
  const head = data.heads[document.querySelector("[name=head]:checked").value], kind = data.classes[head.class];
  const i = +at("prompt").value, prompt = data.prompts[i], view = head.views[i], place = prompt.pos[kind.at];
  const rows = prompt.tokens.map((_, n) => view.pattern.slice(n * (n + 1) / 2, (n + 1) * (n + 2) / 2));
  at("answer").textContent = `Right answer: ${prompt.IO}. Logit difference ${number(prompt.diff)}, probability ${number(prompt.prob)}.`;
  document.querySelectorAll("[data-at]").forEach((e) => { e.textContent = `“${shown(prompt.tokens[prompt.pos[e.dataset.at]])}”`; });
  const arrows = [...document.querySelectorAll("[data-from]")], words = document.querySelector(".board > svg > text");
  arrows.forEach((e) => e.classList.toggle("on", [e.dataset.from, e.dataset.to].includes(head.class)));
  arrows.filter((e) => e.classList.contains("on")).forEach((e) => e.parentNode.insertBefore(e, words));  // over others
  at("panel").style.setProperty("--tint", getComputedStyle(document.querySelector("[name=head]:checked").closest(".box")).getPropertyValue("--tint"));
  at("name").textContent = `${head.name}, ${head.class} head`;
  const joined = [kind.reads.length ? `Fed by ${kind.reads.join(", ")}.` : "", kind.passes.length ? `Passes on to ${kind.passes.join(", ")}.` : ""];
  at("about").textContent = [kind.about, ...joined].filter(Boolean).join(" ");
  at("looks-title").textContent = `Where it looks from ${kind.at}`;
  drawStrip(rows[place], prompt, kind.at, place);
  const best = rows[place].indexOf(Math.max(...rows[place]));
  drawPattern(rows, prompt, place, `Attention pattern of ${head.name}: from ${kind.at} it looks most at “${shown(prompt.tokens[best])}”, ${number(rows[place][best] / 1000)}. The table below it has every token.`);
  table("roles", "Attention to roles in this prompt", [["from"], ...data.keys.map((key) => [key])],
    data.queries.map((query, j) => ({cells: [query, ...view.roles[j].map((x) => number(x))], on: query === kind.at})));
  drawEffects(head, view, i);
  drawAblation(head, view, i, kind.at);
  table("scores", "Scores", [["score"], ["share"], ["as a bar", "bar"]], Object.entries(head.scores).map(([name, x]) => ({cells: [name, number(x), bar(x, 0, 1)]})));
  const short = `${head.name}, ${head.class}: direct effect ${signed(view.direct)}, logit difference without it ${number(view.ablated)}`;
  at("status").textContent = short;
  at("jump").textContent = `${short} ↓`;
  drawOff();
}

// The table of all heads: a filter, a scatter of two of its columns, and an address for each head.

const rows = [...document.querySelectorAll("#heads tbody tr")], columns = [...document.querySelectorAll("#heads thead th")].map((cell) => cell.textContent);
const numeric = columns.map((_, i) => i).filter((i) => i > 2);
const valueOf = (row, i) => row.cells[i].textContent ? +row.cells[i].textContent.replace("−", "-") : null;

function drawScatter() {
  const svg = (tag, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const axes = ["across", "down"].map((id) => +at(id).value), kind = at("kind").value;
  rows.forEach((row) => { row.hidden = Boolean(kind) && row.cells[1].textContent !== kind; });
  const seen = rows.filter((row) => axes.every((i) => valueOf(row, i) !== null));
  const [xs, ys] = axes.map((i) => {
    const values = [0, ...seen.map((row) => valueOf(row, i))], low = Math.min(...values), high = Math.max(...values);
    return [low, high > low ? high : low + 1];
  });
  const x = (value) => 60 + 520 * (value - xs[0]) / (xs[1] - xs[0]), y = (value) => 330 - 310 * (value - ys[0]) / (ys[1] - ys[0]);
  const parts = [svg("line", {class: "zero", x1: 60, x2: 580, y1: y(0), y2: y(0)}), svg("line", {class: "zero", x1: x(0), x2: x(0), y1: 20, y2: 330})];
  xs.forEach((value, i) => parts.push(svg("text", {x: x(value), y: 350, "text-anchor": i ? "end" : "start"}, number(value))));
  ys.forEach((value) => parts.push(svg("text", {x: 54, y: y(value) + 4, "text-anchor": "end"}, number(value))));
  parts.push(svg("text", {x: 320, y: 372, "text-anchor": "middle"}, columns[axes[0]]), svg("text", {x: 14, y: 175, "text-anchor": "middle", transform: "rotate(-90 14 175)"}, columns[axes[1]]));
  for (const row of seen.filter((each) => !each.hidden)) {
    const [name, role] = [row.cells[0].textContent, row.cells[1].textContent], [a, b] = axes.map((i) => valueOf(row, i));
    const words = `${name}, ${role}: ${columns[axes[0]]} ${number(a)}, ${columns[axes[1]]} ${number(b)}`;
    const link = svg("a", {"data-head": name, href: "", "aria-label": words, style: row.cells[1].getAttribute("style")}), point = svg("circle", {cx: x(a), cy: y(b), r: 7});
    point.append(svg("title", {}, words));
    link.append(point);
    parts.push(link);
  }
  at("scatter").replaceChildren(...parts);
}

// A state has an address: "#L9H9&prompt=2&off=name+mover&off=S-inhibition". What it does not name is as it was at first.

function addressOf(head, {prompt, off} = state()) {
  const rest = new URLSearchParams([...(prompt ? [["prompt", prompt + 1]] : []), ...off.map((each) => ["off", each])]).toString();
  return `#${[head, rest].filter(Boolean).join("&")}`;
}

function state() {
  const head = data.heads[document.querySelector("[name=head]:checked").value].name;
  return {head, prompt: +at("prompt").value, off: out};
}

function markAddress() {  // in the address bar, and in every link to a head
  const now = state();
  history.replaceState(null, "", addressOf(now.head, now));
  linkHeads();
}

function linkHeads() {
  for (const link of document.querySelectorAll("#heads a, #scatter a")) link.setAttribute("href", addressOf(link.dataset.head));
}

function followAddress() {
  const given = new URLSearchParams(location.hash.slice(1)), [name] = given.keys(), i = data.heads.findIndex((head) => head.name === name);
  if (i < 0 && !given.has("off") && !given.has("prompt")) return;
  if (i >= 0) document.querySelector(`[name=head][value="${i}"]`).checked = true;
  const prompt = +given.get("prompt") - 1;
  at("prompt").value = data.prompts[prompt] ? prompt : 0;
  out = allowed(given.getAll("off"));
  show();
  linkHeads();
  at(out.length ? "off" : "panel").scrollIntoView();
}
