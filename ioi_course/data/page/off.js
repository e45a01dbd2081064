// Switching heads off: one class or two, or one head. Every answer was computed when the page was made.

const {entries, n, layers, heads: perLayer} = data.off, classes = Object.keys(data.classes), AND = " + ";
const classOf = Object.fromEntries(data.heads.map((head) => [head.name, head.class]));
let out = [];  // names of classes, or the name of one head

// Of names in an address those that can be off together: known classes, two at most, or one head.
function allowed(names) {
  const known = [...new Set(names)].filter((name) => name in entries && !name.includes(AND));
  const some = known.filter((name) => classes.includes(name)).slice(0, 2);
  return some.length ? classes.filter((name) => some.includes(name)) : known.slice(0, 1);
}

function switchOff(names) {
  out = allowed(names);
  drawOff();
  markAddress();
  at("status").textContent = `${at("off-what").textContent}. ${at("off-result").textContent}`;
}

const cells = [];
const wordsOf = (name) => {
  const {effect, error} = entries[name], kind = classOf[name];
  return `${name}${kind ? `, ${kind}` : ""}: without it ${signed(effect)} ± ${number(error)}`;
};

function buildGrid() {
  const most = Math.max(...Object.entries(entries).filter(([name]) => /^L\d+H\d+$/.test(name)).map(([, each]) => Math.abs(each.effect)));
  const go = (cell) => { cells.forEach((each) => { each.tabIndex = each === cell ? 0 : -1; }); cell.focus(); };
  const steps = {ArrowUp: -perLayer, ArrowDown: perLayer, ArrowLeft: -1, ArrowRight: 1};
  const grid = make("div", undefined, {role: "grid", class: "off-grid", "aria-label": "Heads to switch off", "aria-describedby": "off-help", style: `--columns: ${perLayer}`});
  const edge = (role, text) => make("span", text, {role, class: "edge"}), row = (...parts) => { const line = make("div", undefined, {role: "row"}); line.append(...parts); return line; };
  grid.append(row(edge("columnheader", ""), ...Array.from({length: perLayer}, (_, i) => edge("columnheader", `${i}`))));
  grid.firstChild.firstChild.append(make("span", "layer", {class: "unseen"}));
  for (let layer = 0; layer < layers; layer++) {
    grid.append(row(edge("rowheader", `${layer}`), ...Array.from({length: perLayer}, (_, head) => {
      const name = `L${layer}H${head}`, known = entries[name];
      const cell = make("button", undefined, {type: "button", role: "gridcell", tabindex: cells.length ? -1 : 0, "data-name": name, "aria-label": wordsOf(name), title: wordsOf(name)});
      cell.style.cssText = `--share: ${Math.round(90 * Math.abs(known.effect) / most)}%; --kind: var(--${known.effect < 0 ? "down" : "up"})`;
      if (classOf[name]) {
        cell.classList.add("known");
        cell.style.setProperty("--tint", data.drawn[classOf[name]]);
      }
      const place = cells.push(cell) - 1;
      cell.addEventListener("click", () => { go(cell); switchOff(out[0] === name ? [] : [name]); });
      cell.addEventListener("keydown", (event) => {
        const step = steps[event.key], next = event.key === "Home" ? place - place % perLayer : event.key === "End" ? place - place % perLayer + perLayer - 1 : step && place + step;
        if (next === undefined) return;
        event.preventDefault();
        if (cells[next] && (Math.abs(step) !== 1 || Math.floor(next / perLayer) === layer)) go(cells[next]);
      });
      return cell;
    })));
  }
  at("off-grid").replaceChildren(grid);
}

function line(...parts) {
  const text = make("p");
  text.append(...parts);
  return text;
}

function drawOff() {
  const key = out.join(AND), entry = entries[key], i = +at("prompt").value, before = data.prompts[i].diff, roles = out.filter((name) => classes.includes(name));
  const heads = roles.length ? data.heads.filter((head) => roles.includes(head.class)).map((head) => head.name) : out;
  document.querySelectorAll("[name=off]").forEach((box) => { box.checked = out.includes(box.value); });
  cells.forEach((cell) => cell.setAttribute("aria-selected", String(heads.includes(cell.dataset.name))));
  document.querySelectorAll(".box[data-class]").forEach((box) => box.classList.toggle("out", roles.includes(box.dataset.class)));
  document.querySelectorAll(".heads label").forEach((label) => label.classList.toggle("out", heads.includes(label.textContent)));
  document.querySelectorAll("[data-from]").forEach((arrow) => arrow.classList.toggle("out", roles.includes(arrow.dataset.from)));
  at("off-none").disabled = !out.length;
  if (!out.length) {
    at("off-what").textContent = "Nothing is off";
    at("off-result").replaceChildren(line("The logit difference in this prompt is ", make("strong", number(before), {class: "big"}), `; its mean over ${n} prompts is ${number(data.off.before)}.`));
    return;
  }
  const is = entry.after[i], kind = classOf[out[0]], result = make("strong", `${number(before)} → ${number(is)}`, {class: "big"});
  at("off-what").textContent = roles.length ? `Off: ${roles.join(" and ")} (${heads.length} head${heads.length > 1 ? "s" : ""})` : `Off: ${out[0]}, ${kind ? `${kind} head, at ${data.classes[kind].at}` : "a head outside the circuit, at END"}`;
  const parts = [line("Logit difference in this prompt ", result, ` (${signed(is - before)}).`), line(`Mean over ${n} prompts: ${number(data.off.before)} → ${number(data.off.before + entry.effect)}, a change of ${signed(entry.effect)} ± ${number(entry.error)}.`)];
  if (roles.length > 1) {
    const [beyond, error] = entry.beyond, alone = roles.map((name) => entries[name].effect);
    const sums = `Alone they change it by ${alone.map(signed).join(" and ")}: ${signed(alone[0] + alone[1])} if effects added up.`;
    const off = Math.abs(beyond) < 2 * error ? "Together they do about that." : `Together it is ${number(Math.abs(beyond))} ± ${number(error)} ${beyond < 0 ? "lower" : "higher"} than that.`;
    parts.push(line(`${sums} ${off}`));
  }
  if (data.lab) parts.push(labLink(heads, (roles.length ? roles : kind ? [kind] : []).map((name) => data.classes[name].at)));
  at("off-result").replaceChildren(...parts);
}

// The lab takes out the same heads, all of them at the same places; its address is as that of data/lab/lab.js.
function labLink(heads, roles) {
  const prompt = data.prompts[+at("prompt").value], places = [...new Set(roles.length ? roles : ["END"])];
  const pairs = heads.map((name) => name.slice(1).replace("H", ".")).join("-"), where = places.map((place) => prompt.pos[place]).sort((a, b) => a - b).join("-");
  const query = [["p", prompt.text], ["h", pairs], ["how", "mean"], ["at", where]].map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
  const note = places.length > 1 ? ` There each of them is off at both places, ${places.join(" and ")}.` : "";
  const text = line(make("a", "The same in the lab", {href: `${data.lab}#${query}`}), `, where any combination can be tried.${note}`);
  text.className = "dim";
  return text;
}

buildGrid();
document.addEventListener("change", (event) => {
  const box = event.target;
  if (!box.matches("[name=off]")) return;
  const rest = out.filter((name) => classes.includes(name) && name !== box.value);
  switchOff(box.checked ? [...rest.slice(-1), box.value] : rest);
});
at("off-none").addEventListener("click", () => { switchOff([]); document.querySelector("[name=off]").focus(); });
