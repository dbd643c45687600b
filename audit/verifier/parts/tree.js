// The tree (RFC 6962, 2.1) and how it lies in tiles (C2SP tlog-tiles): paths, leaves, roots and proofs of the past.

const WIDTH = 256;
const EMPTY_ROOT = hexOf(sha256(new Uint8Array(0)));

const leafHash = (entry) => sha256(concat(Uint8Array.of(0), entry));

const PAIR = new Uint8Array(65);
function nodeHash(left, right) {
  PAIR[0] = 1;
  PAIR.set(left, 1);
  PAIR.set(right, 33);
  return sha256(PAIR);
}

/** The right edge of a growing tree: enough to give its root at each size. */
class Frontier {
  constructor() {
    this.size = 0;
    this.peaks = [];
  }

  add(leaf) {
    let hash = leaf;
    for (let size = this.size; size & 1; size = Math.floor(size / 2)) hash = nodeHash(this.peaks.pop(), hash);
    this.peaks.push(hash);
    this.size++;
  }

  root() {
    if (!this.peaks.length) return sha256(new Uint8Array(0));
    return this.peaks.reduceRight((right, left) => nodeHash(left, right));
  }
}

function numberPath(n) {
  let text = String(n % 1000).padStart(3, "0");
  for (n = Math.floor(n / 1000); n > 0; n = Math.floor(n / 1000)) {
    text = `x${String(n % 1000).padStart(3, "0")}/${text}`;
  }
  return text;
}

const filePath = (folder, n, width) => `${folder}/${numberPath(n)}${width < WIDTH ? `.p/${width}` : ""}`;
const tilePath = (level, n, width) => filePath(`tile/${level}`, n, width);
const bundlePath = (n, width) => filePath("tile/entries", n, width);

/** Return [{n, width}] of the tiles that hold `count` items. */
function widths(count) {
  const found = [];
  for (let n = 0; n * WIDTH < count; n++) found.push({ n, width: Math.min(WIDTH, count - n * WIDTH) });
  return found;
}

/** Return [{level, n, width, path}] of every hash tile of a tree; a level above holds full tiles only. */
function hashTiles(size) {
  const found = [];
  for (let level = 0; size > 0; level++, size = Math.floor(size / WIDTH)) {
    for (const { n, width } of widths(size)) found.push({ level, n, width, path: tilePath(level, n, width) });
  }
  return found;
}

function splitHashes(tile) {
  return Array.from({ length: tile.length / 32 }, (_, i) => tile.subarray(32 * i, 32 * i + 32));
}

function tileRoot(hashes) {
  let level = hashes;
  while (level.length > 1) {
    level = Array.from({ length: level.length / 2 }, (_, i) => nodeHash(level[2 * i], level[2 * i + 1]));
  }
  return level[0];
}

/** Return the entries of a bundle and the first index, if any, that its framing does not hold. */
function splitBundle(data, first, width) {
  const entries = [];
  let at = 0;
  for (let index = first; index < first + width; index++) {
    if (at + 2 > data.length) return { entries, fault: { index, key: "bundleEnds" } };
    const end = at + 2 + data[at] * 256 + data[at + 1];
    if (end > data.length) return { entries, fault: { index, key: "bundleCuts" } };
    entries.push(data.subarray(at + 2, end));
    at = end;
  }
  const fault = at === data.length ? null : { index: first + width - 1, key: "bundleLonger" };
  return { entries, fault };
}
