// The lab's engine in the browser: the rules of ioi_course.interventions, computed by onnxruntime-web.

const N_ABC = 12, WORDS_ONLY = 5000, TOP = 8;

export const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

export async function unzipped(bytes) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
}

// The weights in float32, one after the other, from a packed file (see ioi_course.publish.lab_model.packed).
export function unpackedWeights(data) {
  const view = new DataView(data.buffer, data.byteOffset), size = view.getUint32(0, true);
  const tensors = JSON.parse(new TextDecoder().decode(data.subarray(4, 4 + size)));
  const count = (shape) => shape.reduce((a, b) => a * b, 1), padded = (n) => n + (-n & 3);
  const all = new Float32Array(tensors.reduce((sum, { shape }) => sum + count(shape), 0));
  let at = data.byteOffset + 4 + size, to = 0;
  for (const { shape, bits } of tensors) {
    const n = count(shape);
    if (bits === 32) {
      all.set(new Float32Array(data.buffer, at, n), to);
      at += 4 * n;
    } else {
      const scale = new Float32Array(data.buffer, at, shape[0]), codes = new Int16Array(data.buffer, at + 4 * shape[0], n);
      const columns = n / shape[0];
      for (let row = 0, i = 0; row < shape[0]; row++) for (let j = 0; j < columns; j++, i++) all[to + i] = codes[i] * scale[row];
      at += 4 * shape[0] + padded(2 * n);
    }
    to += n;
  }
  return all;
}

function softmax(logits) {
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity), parts = Array.from(logits, (x) => Math.exp(x - most));
  const sum = parts.reduce((a, b) => a + b, 0);
  return parts.map((x) => x / sum);
}

// The words that are more than one token, with their pieces.
function cutWords(words) {
  const letter = /\p{L}/u, parts = [];
  for (const word of words) {
    const last = parts.at(-1)?.at(-1);
    if (last && letter.test([...word][0] ?? "") && letter.test([...last].at(-1) ?? "")) parts.at(-1).push(word);
    else parts.push([word]);
  }
  return parts.filter((each) => each.length > 1).map((each) => {
    const pieces = [each[0].trim(), ...each.slice(1)];
    return `“${pieces.join("")}” (${pieces.join(" + ")})`;
  });
}

// config: {model, what, n_layers, n_heads, d_head, width, n_ctx, names: [[token, name], …] in the order of the list, classes, colours, examples}
export async function webEngine({ ort, graph, weights, tokenizer, config }) {
  const { n_layers: L, n_heads: H, d_head: D, width: W } = config;
  const names = new Map(config.names);
  const tokenOf = new Map([...names].map(([token, name]) => [name, token]));
  const options = { executionProviders: ["wasm"], externalData: [{ path: "weights", data: new Uint8Array(weights.buffer) }] };
  const session = await ort.InferenceSession.create(graph, options);
  const known = new Map();

  function read(text) {
    if (!text.trim()) throw new Error("The prompt is empty. Write a sentence that ends where a name should follow.");
    const tokens = [tokenizer.end, ...tokenizer.encode(text)];
    if (tokens.length > config.n_ctx) throw new Error(`The prompt has ${tokens.length} tokens, and this model reads ${config.n_ctx} at most. Shorten it.`);
    const words = tokens.map((token, i) => (i ? tokenizer.decode(token) : "BOS"));
    const named = tokens.flatMap((token, i) => (names.has(token) ? [[i, names.get(token)]] : []));
    const s = named.at(-1)?.[1], io = named.find(([, name]) => name !== s)?.[1], notes = [];
    if (text !== text.trimEnd()) notes.push("The prompt ends in a space, which becomes a token of its own; end it with a word.");
    const cut = tokenizer.size < WORDS_ONLY ? cutWords(words.slice(1)) : [];
    if (cut.length) notes.push(`This model has no token for ${cut.join(", ")}: it reads pieces that mean nothing to it.`);
    if (!io) notes.push("Without two different names there is no logit difference; next tokens are shown all the same.");
    const pos = {};
    if (io) {
      const at = (name) => named.filter((each) => each[1] === name).map(([i]) => i), of = at(s);
      Object.assign(pos, { IO: at(io)[0], S1: of[0] }, of.length > 1 ? { "S1+1": of[0] + 1, S2: of.at(-1) } : {});
    }
    return { text, tokens, words, named, answers: io ? [io, s] : null, notes, pos: { ...pos, END: tokens.length - 1 } };
  }

  // One run; what stands in for z and for the stream is taken as zero where nothing is given.
  async function run(tokens, { keep, stand, stay, stream } = {}) {
    const n = tokens.length, tensor = (data, ...shape) => new ort.Tensor("float32", data, shape);
    const out = await session.run({
      tokens: new ort.Tensor("int32", Int32Array.from(tokens), [n]),
      keep: tensor(keep ?? new Float32Array(L * H * n).fill(1), L, H, n),
      stand: tensor(stand ?? new Float32Array(L * H * n * D), L, H, n, D),
      stay: tensor(stay ?? new Float32Array(L * n).fill(1), L, n),
      stream: tensor(stream ?? new Float32Array(L * n * W), L, n, W),
    });
    return Object.fromEntries(Object.entries(out).map(([name, value]) => [name, value.data]));
  }

  async function remembered(key, make) {
    if (!known.has(key)) {
      if (known.size >= 8) known.delete(known.keys().next().value);
      known.set(key, await make());
    }
    return known.get(key);
  }
  const plain = (reading) => remembered(`run ${reading.tokens}`, () => run(reading.tokens));

  function mean(reading) {
    const mentioned = new Set(reading.named.map(([, name]) => name)), places = reading.named.map(([i]) => i);
    const fresh = [...names].filter(([, name]) => !mentioned.has(name)).map(([token]) => token);
    if (!places.length) throw new Error("A mean over ABC prompts puts new names in the place of those in the prompt, and this prompt has none that the model knows. Choose zero instead, or write names into it.");
    if (places.length > fresh.length) throw new Error(`${places.length} mentions of names, and only ${fresh.length} names to replace them. Shorten it.`);
    return remembered(`mean ${reading.tokens}`, async () => {
      const sum = new Float32Array(L * H * reading.tokens.length * D);
      for (let i = 0; i < N_ABC; i++) {
        const tokens = [...reading.tokens];
        places.forEach((place, j) => { tokens[place] = fresh[(i * places.length + j) % fresh.length]; });
        const { z } = await run(tokens);
        for (let k = 0; k < z.length; k++) sum[k] += z[k] / N_ABC;
      }
      return sum;
    });
  }

  function otherRun(state, reading) {
    if (!state.other.trim()) throw new Error("There is no counterfactual to take from. Write one, of as many tokens as the prompt.");
    const other = read(state.other);
    if (other.tokens.length !== reading.tokens.length) throw new Error(`The counterfactual has ${other.tokens.length} tokens and the prompt ${reading.tokens.length}, so a position does not mean the same in both. Make them equally long: change words, and add or leave out none.`);
    return plain(other);
  }

  async function changes(state, reading) {
    const n = reading.tokens.length, amount = state.how === "keep" ? 0 : state.amount;
    const missing = (what) => { throw new Error(`${what} This model has ${L} layers of ${H} heads, and the prompt ${n} positions, all counted from 0.`); };
    for (const [layer, head] of state.heads) if (layer >= L || head >= H) missing(`There is no head L${layer}H${head}.`);
    for (const [layer, place] of state.stream) if (layer >= L || place >= n) missing(`There is no place (layer ${layer}, position ${place}) in the stream.`);
    for (const place of state.at) if (place >= n) missing(`There is no position ${place}.`);
    const chosen = new Set(state.heads.map(([layer, head]) => layer * H + head)), keep = new Float32Array(L * H * n).fill(1);
    const there = (place) => !state.at.length || state.at.includes(place);
    let any = false;
    for (let at = 0; at < L * H; at++) {
      if (chosen.has(at) === state.only) continue;
      any = true;
      for (let i = 0; i < n; i++) if (there(i)) keep[at * n + i] = 1 - amount;
    }
    const stand = !any || !amount ? undefined : state.how === "other" ? (await otherRun(state, reading)).z : state.how === "mean" ? await mean(reading) : undefined;
    if (!state.stream.length) return { keep, stand };
    const { resid } = await otherRun(state, reading), stay = new Float32Array(L * n).fill(1);
    for (const [layer, place] of state.stream) stay[layer * n + place] = 0;
    return { keep, stand, stay, stream: resid };
  }

  return {
    info: config,
    tokenizer,
    read,
    async run(state) {
      const reading = read(state.prompt), given = await changes(state, reading);
      const before = await plain(reading), after = await run(reading.tokens, given);
      const p = softmax(before.logits), q = softmax(after.logits), n = reading.tokens.length;
      const best = (x) => x.map((_, i) => i).sort((a, b) => x[b] - x[a] || a - b).slice(0, TOP);
      const diff = ({ logits }) => logits[tokenOf.get(reading.answers[0])] - logits[tokenOf.get(reading.answers[1])];
      return {
        words: reading.words, pos: reading.pos, answers: reading.answers, notes: reading.notes,
        diff: reading.answers && [diff(before), diff(after)],
        top: [...new Set([...best(q), ...best(p)])].map((token) => [tokenizer.decode(token), p[token], q[token]]),
        logits: after.logits,
        pattern(layer, head, changed) {
          const all = (changed ? after : before).pattern, from = (layer * H + head) * n * n;
          return all.subarray(from, from + n * n);
        },
      };
    },
  };
}
