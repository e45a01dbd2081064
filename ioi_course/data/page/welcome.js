// Which chapters were read: ticks that the browser keeps. Without this script the page lacks only them.
const KEY = "ioi-course.read";
const boxes = [...document.querySelectorAll("input[data-chapter]")];

function load() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY));
    return new Set(Array.isArray(found) ? found : []);
  } catch {
    return new Set();
  }
}

function save(read) {
  try {
    localStorage.setItem(KEY, JSON.stringify([...read]));
  } catch {
    document.getElementById("progress-where").textContent =
      "Tick a chapter when you have read it. This browser keeps nothing for this page, so the ticks last until you leave it.";
  }
}

function said(minutes) {
  const parts = [[Math.floor(minutes / 60), "hour"], [minutes % 60, "minute"]].filter(([count]) => count);
  return parts.map(([count, unit]) => `${count} ${unit}${count === 1 ? "" : "s"}`).join(" ");
}

function show() {
  const left = boxes.filter((box) => !box.checked), read = boxes.length - left.length;
  const minutes = left.reduce((sum, box) => sum + Number(box.closest("li").dataset.minutes), 0);
  const text = document.getElementById("progress-text");
  document.querySelector("#progress progress").value = read;
  text.textContent = `${read} of ${boxes.length} chapters read`;
  if (!left.length) return text.append(". That was the whole course: well done.");
  if (minutes) text.append(`, about ${said(minutes)} to go`);
  text.append(". Next: ");
  const link = left[0].closest("li").querySelector("h3").firstChild.cloneNode(true);
  text.append(link, ".");
}

let read = load();
save(read);
for (const box of boxes) {
  box.checked = read.has(box.dataset.chapter);
  box.closest("label").hidden = false;
  box.addEventListener("change", () => {
    box.checked ? read.add(box.dataset.chapter) : read.delete(box.dataset.chapter);
    save(read);
    show();
  });
}
addEventListener("storage", (event) => {
  if (event.key !== KEY) return;
  read = load();
  for (const box of boxes) box.checked = read.has(box.dataset.chapter);
  show();
});
if (boxes.length) {
  document.getElementById("progress").hidden = false;
  show();
}
