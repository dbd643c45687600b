// Bytes and their text forms, SHA-256 (FIPS 180-4) and CRC-32. Strict: one value has one spelling.

/** A refusal: `key` names its sentence in words.js, `args` fill it. Anything else thrown is our own fault. */
class Refused extends Error {
  constructor(key, ...args) {
    super(`${key} ${args.join(" ")}`);
    this.key = key;
    this.args = args;
  }
}

const refuse = (key, ...args) => { throw new Refused(key, ...args); };

const ENCODER = new TextEncoder();
const utf8 = (text) => ENCODER.encode(text);

/** Return the text of UTF-8 bytes; null if they are not UTF-8. A byte order mark is kept, so it is refused later. */
function textOf(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

const hexOf = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

function equalBytes(a, b) {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

function concat(...parts) {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

function bigEndian(value, width) {
  const bytes = new Uint8Array(width);
  for (let i = width - 1; i >= 0; i--) {
    bytes[i] = value % 256;
    value = Math.floor(value / 256);
  }
  return bytes;
}

function base64Of(bytes) {
  let binary = "";
  for (let i = 0; i < bytes.length; i += 4096) {
    binary += String.fromCharCode(...bytes.subarray(i, i + 4096));
  }
  return btoa(binary);
}

/** Return the bytes of canonical base64, or null: spare bits would be a second spelling. */
function fromBase64(text) {
  if (typeof text !== "string" || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) return null;
  let binary;
  try {
    binary = atob(text);
  } catch {
    return null;
  }
  if (btoa(binary) !== text) return null;
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/** The first 32 bits of the fractional parts of the `power`-th roots of the first primes. */
function rootBits(count, power) {
  const found = [];
  for (let n = 2; found.length < count; n++) {
    let prime = true;
    for (let d = 2; d * d <= n; d++) if (n % d === 0) prime = false;
    // Exact: the largest x with x^power <= n * 2^(32 * power), by bisection over integers.
    if (!prime) continue;
    const target = BigInt(n) << BigInt(32 * power);
    let low = 0n, high = BigInt(n) << 32n;
    while (low < high) {
      const middle = (low + high + 1n) >> 1n;
      if (middle ** BigInt(power) <= target) low = middle;
      else high = middle - 1n;
    }
    found.push(Number(low & 0xffffffffn) | 0);
  }
  return Int32Array.from(found);
}

const SHA256_START = rootBits(8, 2);
const SHA256_ROUND = rootBits(64, 3);

function sha256(bytes) {
  const length = bytes.length;
  const blocks = Math.ceil((length + 9) / 64);
  const tail = new Uint8Array(blocks * 64 - (length - (length % 64)));
  tail.set(bytes.subarray(length - (length % 64)));
  tail[length % 64] = 0x80;
  tail.set(bigEndian(length * 8, 8), tail.length - 8);
  const state = SHA256_START.slice();
  const words = new Int32Array(64);
  const whole = length - (length % 64);
  for (let at = 0; at < whole; at += 64) compress(state, words, bytes, at);
  for (let at = 0; at < tail.length; at += 64) compress(state, words, tail, at);
  const digest = new Uint8Array(32);
  for (let i = 0; i < 32; i++) digest[i] = state[i >> 2] >>> (24 - 8 * (i & 3));
  return digest;
}

function compress(state, w, data, at) {
  for (let i = 0; i < 16; i++, at += 4) {
    w[i] = (data[at] << 24) | (data[at + 1] << 16) | (data[at + 2] << 8) | data[at + 3];
  }
  for (let i = 16; i < 64; i++) {
    const x = w[i - 15], y = w[i - 2];
    const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
    const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
    w[i] = (w[i - 16] + s0 + w[i - 7] + s1) | 0;
  }
  let [a, b, c, d, e, f, g, h] = state;
  for (let i = 0; i < 64; i++) {
    const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
    const t1 = (h + s1 + ((e & f) ^ (~e & g)) + SHA256_ROUND[i] + w[i]) | 0;
    const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
    const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    h = g; g = f; f = e; e = (d + t1) | 0;
    d = c; c = b; b = a; a = (t1 + t2) | 0;
  }
  state[0] += a; state[1] += b; state[2] += c; state[3] += d;
  state[4] += e; state[5] += f; state[6] += g; state[7] += h;
}

/** SHA-256 over a domain tag and parts, each after its length in eight bytes (fedproto.ids.tagged_hash). */
function taggedHash(tag, ...parts) {
  const pieces = [utf8(tag), ...parts].flatMap((part) => [bigEndian(part.length, 8), part]);
  return sha256(concat(...pieces));
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

function crc32(bytes) {
  let crc = -1;
  for (let i = 0; i < bytes.length; i++) crc = CRC_TABLE[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return (crc ^ -1) >>> 0;
}
