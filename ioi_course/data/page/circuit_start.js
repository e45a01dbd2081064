// The start: lists are filled, the first head is shown, and what the address says.

for (const [id, first] of [["across", "direct effect"], ["down", "without it"]]) {
  at(id).append(...numeric.map((i) => make("option", columns[i], {value: i})));
  at(id).value = columns.indexOf(first);
}
rows.forEach((row) => {
  const cell = row.cells[0], name = cell.textContent;
  cell.replaceChildren(make("a", name, {"data-head": name}));
});
// Not before the page is loaded: links in a drawing have no plain address, and the site's own script changes those of all
// links that it finds.
const begin = () => { drawScatter(); linkHeads(); };
if (document.readyState === "complete") begin(); else addEventListener("load", begin);
addEventListener("hashchange", followAddress);
document.addEventListener("change", (event) => {
  if (event.target.matches("#kind, #across, #down")) { drawScatter(); linkHeads(); }
  if (event.target.matches("[name=head], #prompt")) { show(); markAddress(); }
});
at("off-table").open = false;
show();
linkHeads();
followAddress();
