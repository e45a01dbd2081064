// The engine with its runtime and its model, which are fetched as scripts: that works from the file system, too.

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

// What an engine in the browser needs; `labFailed` has a word for each of them that is missing.
const canRun = () => typeof WebAssembly === "object" && typeof DecompressionStream === "function";

async function loadEngine(config, marks = {}) {
  if (!canRun()) throw new Error();
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
  return engine;
}
