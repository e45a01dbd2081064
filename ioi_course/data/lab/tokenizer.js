// Byte-level BPE, as GPT-2's: text to tokens and back, from a vocabulary and its merges.

const CUT = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

// The character that stands for each byte in a vocabulary.
function byteCharacters() {
  const printable = (b) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  let spare = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(printable(b) ? b : spare++));
}

// {vocab: tokens in the order of their ids, merges: ["a b", …] the first first, end: the special token's text}
export function makeTokenizer({ vocab, merges, end }) {
  const letters = byteCharacters();
  const bytes = new Map(letters.map((letter, byte) => [letter, byte]));
  const ids = new Map(vocab.map((token, id) => [token, id]));
  const ranks = new Map(merges.map((pair, rank) => [pair, rank]));
  const known = new Map();

  function pieces(word) {
    let parts = [...new TextEncoder().encode(word)].map((byte) => letters[byte]);
    while (parts.length > 1) {
      let best = Infinity;
      for (let i = 0; i + 1 < parts.length; i++) best = Math.min(best, ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity);
      if (best === Infinity) break;
      const [left, right] = merges[best].split(" "), merged = [];
      for (let i = 0; i < parts.length; i++) {
        if (parts[i] === left && parts[i + 1] === right) merged.push(left + right), i++;
        else merged.push(parts[i]);
      }
      parts = merged;
    }
    return parts.map((part) => ids.get(part));
  }

  function encode(text) {
    const plain = (part) => (part.match(CUT) ?? []).flatMap((word) => {
      if (!known.has(word)) known.set(word, pieces(word));
      return known.get(word);
    });
    return text.split(end).flatMap((part, i) => [...(i ? [ids.get(end)] : []), ...plain(part)]);
  }

  function decode(id) {
    if (vocab[id] === end) return end;
    return new TextDecoder().decode(Uint8Array.from([...vocab[id]], (letter) => bytes.get(letter)));
  }

  return { encode, decode, end: ids.get(end), size: vocab.length };
}
