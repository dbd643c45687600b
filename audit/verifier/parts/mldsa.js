// Verification of ML-DSA-44 and ML-DSA-65 signatures, written from FIPS 204 (section and algorithm numbers are
// its). Nothing here is secret, so nothing needs to take constant time.

const Q = 8380417;
const N = 256;
const DROPPED = 13;

/** FIPS 204, table 1: rows and columns of A, ones in c, bits of z, 2 * gamma2, beta, omega, bytes of c~. */
const MLDSA = {
  44: { k: 4, l: 4, tau: 39, gamma1Bits: 17, alpha: (Q - 1) / 44, beta: 78, omega: 80, cTilde: 32 },
  65: { k: 6, l: 5, tau: 49, gamma1Bits: 19, alpha: (Q - 1) / 16, beta: 196, omega: 55, cTilde: 48 },
};
for (const p of Object.values(MLDSA)) {
  p.gamma1 = 2 ** p.gamma1Bits;
  p.zBytes = 32 * (p.gamma1Bits + 1);
  p.publicBytes = 32 + 320 * p.k;
  p.signatureBytes = p.cTilde + p.l * p.zBytes + p.omega + p.k;
}

/** Return a * b mod Q. Exact: a product is below 2^46, and the quotient is off by one at most. */
function mulmod(a, b) {
  const product = a * b;
  let r = product - Math.floor(product * (1 / Q)) * Q;
  if (r < 0) r += Q;
  else if (r >= Q) r -= Q;
  return r;
}

/** Powers of the 512th root of unity 1753, in the bit-reversed order of appendix B. */
const ZETAS = (() => {
  const powers = new Int32Array(N);
  const reversed = (i) => parseInt(i.toString(2).padStart(8, "0").split("").reverse().join(""), 2);
  let power = 1;
  const inOrder = Array.from({ length: N }, () => {
    const now = power;
    power = mulmod(power, 1753);
    return now;
  });
  for (let i = 0; i < N; i++) powers[i] = inOrder[reversed(i)];
  return powers;
})();

/** Algorithm 41, in place. */
function ntt(w) {
  for (let length = 128, m = 0; length >= 1; length >>= 1) {
    for (let start = 0; start < N; start += 2 * length) {
      const zeta = ZETAS[++m];
      for (let j = start; j < start + length; j++) {
        const t = mulmod(zeta, w[j + length]);
        const low = w[j] - t, high = w[j] + t;
        w[j + length] = low < 0 ? low + Q : low;
        w[j] = high >= Q ? high - Q : high;
      }
    }
  }
  return w;
}

/** Algorithm 42, in place. */
function inverseNtt(w) {
  for (let length = 1, m = N; length < N; length <<= 1) {
    for (let start = 0; start < N; start += 2 * length) {
      const zeta = Q - ZETAS[--m];
      for (let j = start; j < start + length; j++) {
        const t = w[j], sum = t + w[j + length], difference = t - w[j + length];
        w[j] = sum >= Q ? sum - Q : sum;
        w[j + length] = mulmod(zeta, difference < 0 ? difference + Q : difference);
      }
    }
  }
  for (let j = 0; j < N; j++) w[j] = mulmod(8347681, w[j]);
  return w;
}

/** Read 256 numbers of `bits` each, least significant bit first (algorithms 18 and 19 before their offset). */
function unpack(bytes, bits) {
  const found = new Int32Array(N);
  let buffer = 0, held = 0, at = 0;
  for (let i = 0; i < N; i++) {
    while (held < bits) {
      buffer += bytes[at++] * 2 ** held;
      held += 8;
    }
    found[i] = buffer % 2 ** bits;
    buffer = Math.floor(buffer / 2 ** bits);
    held -= bits;
  }
  return found;
}

/** Algorithm 30: one entry of A, in the NTT domain, by rejection. */
function rejectedSample(rho, column, row) {
  const stream = shake128(rho, Uint8Array.of(column, row));
  const found = new Int32Array(N);
  for (let i = 0; i < N; ) {
    const value = stream.byte() | (stream.byte() << 8) | ((stream.byte() & 0x7f) << 16);
    if (value < Q) found[i++] = value;
  }
  return found;
}

/** Algorithm 29: the challenge, with tau coefficients of 1 or -1. */
function sampleInBall(p, seed) {
  const stream = shake256(seed);
  const signs = stream.read(8);
  const c = new Int32Array(N);
  for (let i = N - p.tau; i < N; i++) {
    let j = stream.byte();
    while (j > i) j = stream.byte();
    c[i] = c[j];
    const sign = i + p.tau - N;
    c[j] = (signs[sign >> 3] >> (sign & 7)) & 1 ? Q - 1 : 1;
  }
  return c;
}

/** Algorithm 21: which coefficients get a hint; null for any but the one spelling. */
function unpackHints(p, bytes) {
  const hints = Array.from({ length: p.k }, () => new Uint8Array(N));
  let index = 0;
  for (let i = 0; i < p.k; i++) {
    const end = bytes[p.omega + i];
    if (end < index || end > p.omega) return null;
    for (const first = index; index < end; index++) {
      if (index > first && bytes[index - 1] >= bytes[index]) return null;
      hints[i][bytes[index]] = 1;
    }
  }
  for (; index < p.omega; index++) if (bytes[index] !== 0) return null;
  return hints;
}

/** Algorithms 36 and 40: the high part of r, corrected by a hint. */
function useHint(p, hint, r) {
  let low = r % p.alpha;
  if (low > p.alpha / 2) low -= p.alpha;
  const top = (Q - 1) / p.alpha;
  let high;
  if (r - low === Q - 1) {
    high = 0;
    low -= 1;
  } else {
    high = (r - low) / p.alpha;
  }
  if (!hint) return high;
  return low > 0 ? (high + 1) % top : (high + top - 1) % top;
}

/** Algorithm 28: the high parts, 4 bits each (ML-DSA-65) or 6 (ML-DSA-44). */
function packHigh(p, rows) {
  const bits = p.alpha === (Q - 1) / 16 ? 4 : 6;
  const bytes = new Uint8Array(32 * bits * p.k);
  let at = 0;
  for (const row of rows) {
    let buffer = 0, held = 0;
    for (const value of row) {
      buffer |= value << held;
      held += bits;
      while (held >= 8) {
        bytes[at++] = buffer & 255;
        buffer >>= 8;
        held -= 8;
      }
    }
  }
  return bytes;
}

/** A public key, decoded (algorithm 23) and its matrix expanded (algorithm 32) once for many signatures. */
class MldsaKey {
  constructor(level, bytes) {
    const p = MLDSA[level];
    if (bytes.length !== p.publicBytes) throw new RangeError("the key's length is not its kind's");
    const rho = bytes.subarray(0, 32);
    this.p = p;
    this.matrix = Array.from({ length: p.k }, (_, r) =>
      Array.from({ length: p.l }, (_, s) => rejectedSample(rho, s, r)));
    this.t1 = Array.from({ length: p.k }, (_, i) => {
      const row = unpack(bytes.subarray(32 + 320 * i, 352 + 320 * i), 10);
      return ntt(row.map((value) => value * 2 ** DROPPED));
    });
    this.tr = shake256(bytes).read(64);
  }

  /** Say whether a signature over `message` verifies (algorithms 3, 8 and 27). */
  verify(signature, message, context = new Uint8Array(0)) {
    const { p } = this;
    if (signature.length !== p.signatureBytes || context.length > 255) return false;
    const cTilde = signature.subarray(0, p.cTilde);
    const hints = unpackHints(p, signature.subarray(p.cTilde + p.l * p.zBytes));
    if (hints === null) return false;
    const z = [];
    for (let i = 0; i < p.l; i++) {
      const start = p.cTilde + i * p.zBytes;
      const row = unpack(signature.subarray(start, start + p.zBytes), p.gamma1Bits + 1);
      for (let j = 0; j < N; j++) {
        const value = p.gamma1 - row[j];
        if (Math.abs(value) >= p.gamma1 - p.beta) return false;
        row[j] = value < 0 ? value + Q : value;
      }
      z.push(ntt(row));
    }
    const head = concat(Uint8Array.of(0, context.length), context);
    const mu = shake256(this.tr, head, message).read(64);
    const c = ntt(sampleInBall(p, cTilde));
    const rows = hints.map((hint, i) => this.#highRow(i, hint, z, c));
    return equalBytes(shake256(mu, packHigh(p, rows)).read(p.cTilde), cTilde);
  }

  #highRow(i, hint, z, c) {
    const sum = new Int32Array(N);
    for (let j = 0; j < N; j++) {
      let total = Q - mulmod(c[j], this.t1[i][j]);
      for (let s = 0; s < this.p.l; s++) total += mulmod(this.matrix[i][s][j], z[s][j]);
      sum[j] = total % Q;
    }
    return inverseNtt(sum).map((value, j) => useHint(this.p, hint[j], value));
  }
}
