// The lab's page: fetch the engine, and put the lab up.

const marks = { start: performance.now() };

async function start() {
  const engine = await loadEngine(JSON.parse(document.getElementById("lab-config").textContent), marks);
  const given = new URLSearchParams(location.hash.slice(1)), here = location.href.replace(/#.*/, "");
  const lab = mountLab(document.getElementById("lab"), engine, {
    state: shared(location.hash) ?? undefined, tours: TOURS, tour: given.get("tour"),
    onstate: (state) => history.replaceState(null, "", `#${share(state)}`), link: (text) => `${here}#${text}`,
  });
  await lab.ready;
  marks.answered = performance.now();
  addEventListener("hashchange", () => {
    const tour = new URLSearchParams(location.hash.slice(1)).get("tour"), next = shared(location.hash);
    if (tour) lab.startTour(tour);
    else if (next) lab.set(next);
  });
  globalThis.ioiLab = Object.assign(lab, { engine, marks });
}

start().catch(labFailed);
