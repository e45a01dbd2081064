// The lab's page: fetch the runtime and the model as scripts, which works from the file system too, and put the lab up.

const marks = { start: performance.now() };

// A script that lies beside the page and leaves its text in globalThis.ioiLabParts.
function part(name) {
  return new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = name;
    script.onload = () => done();
    script.onerror = () => failed(new Error(`${name} did not arrive: the network may be down, or block it. Load the page again.`));
    document.head.append(script);
  });
}

async function start() {
  if (typeof WebAssembly !== "object" || typeof DecompressionStream !== "function") throw new Error();
  const config = JSON.parse(document.getElementById("lab-config").textContent);
  await Promise.all(config.parts.map(part));
  const parts = globalThis.ioiLabParts;
  marks.arrived = performance.now();
  const [wasm, weights] = await Promise.all([parts.wasm, parts.weights].map((text) => unzipped(bytesOf(text))));
  const address = (bytes, type) => URL.createObjectURL(new Blob([bytes], { type }));
  const ort = await import(address(bytesOf(parts.runtime), "text/javascript"));
  ort.env.wasm.wasmPaths = { mjs: address(bytesOf(parts.glue), "text/javascript"), wasm: address(wasm, "application/wasm") };
  ort.env.wasm.numThreads = 1;
  const engine = await webEngine({ ort, graph: bytesOf(parts.graph), weights: unpackedWeights(weights), tokenizer: makeTokenizer(parts.tokenizer), config });
  parts.wasm = parts.weights = parts.runtime = parts.glue = "";
  marks.loaded = performance.now();
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
