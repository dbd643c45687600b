// Keccak-f[1600] and the SHAKE functions (FIPS 202). A lane is two 32-bit halves: low at 2i, high at 2i + 1.

/** Round constants, by the LFSR x^8 + x^6 + x^5 + x^4 + 1 of FIPS 202, algorithm 5. */
const KECCAK_ROUND = (() => {
  const constants = new Int32Array(48);
  let lfsr = 1;
  for (let round = 0; round < 24; round++) {
    for (let j = 0; j < 7; j++) {
      const bit = 2 ** j - 1;
      if (lfsr & 1) constants[2 * round + (bit >> 5)] ^= 1 << (bit & 31);
      lfsr = (lfsr << 1) ^ (lfsr & 0x80 ? 0x171 : 0);
    }
  }
  return constants;
})();

/** Where each lane goes and by how much it turns (steps rho and pi of FIPS 202, 3.2.2 and 3.2.3). */
const KECCAK_STEP = (() => {
  const steps = [{ from: 0, to: 0, turn: 0 }];
  let x = 1, y = 0;
  for (let t = 0; t < 24; t++) {
    const to = y + 5 * ((2 * x + 3 * y) % 5);
    steps.push({ from: x + 5 * y, to, turn: (((t + 1) * (t + 2)) / 2) % 64 });
    [x, y] = [y, (2 * x + 3 * y) % 5];
  }
  return steps;
})();
const STEP_FROM = Int32Array.from(KECCAK_STEP, (step) => 2 * step.from);
const STEP_TO = Int32Array.from(KECCAK_STEP, (step) => 2 * step.to);
const STEP_TURN = Int32Array.from(KECCAK_STEP, (step) => step.turn);

const COLUMN = new Int32Array(10);
const MOVED = new Int32Array(50);

function keccak(a) {
  const c = COLUMN, b = MOVED;
  for (let round = 0; round < 24; round++) {
    for (let i = 0; i < 10; i++) c[i] = a[i] ^ a[i + 10] ^ a[i + 20] ^ a[i + 30] ^ a[i + 40];
    for (let x = 0; x < 10; x += 2) {
      const left = (x + 8) % 10, right = (x + 2) % 10;
      const low = c[left] ^ ((c[right] << 1) | (c[right + 1] >>> 31));
      const high = c[left + 1] ^ ((c[right + 1] << 1) | (c[right] >>> 31));
      for (let y = x; y < 50; y += 10) {
        a[y] ^= low;
        a[y + 1] ^= high;
      }
    }
    for (let i = 0; i < 25; i++) {
      const from = STEP_FROM[i], to = STEP_TO[i], turn = STEP_TURN[i] & 31;
      // Half a turn swaps the halves; a shift by 32 is none in this language, so 0 stands apart.
      const swap = STEP_TURN[i] >> 5;
      const low = a[from + swap], high = a[from + 1 - swap];
      b[to] = turn ? (low << turn) | (high >>> (32 - turn)) : low;
      b[to + 1] = turn ? (high << turn) | (low >>> (32 - turn)) : high;
    }
    for (let y = 0; y < 50; y += 10) {
      for (let x = 0; x < 10; x++) a[y + x] = b[y + x] ^ (~b[y + ((x + 2) % 10)] & b[y + ((x + 4) % 10)]);
    }
    a[0] ^= KECCAK_ROUND[2 * round];
    a[1] ^= KECCAK_ROUND[2 * round + 1];
  }
}

/** A SHAKE in use: all that is hashed is given at once, output is read piece by piece. */
class Shake {
  constructor(rate, ...parts) {
    this.rate = rate;
    this.state = new Int32Array(50);
    let at = 0;
    for (const part of parts) {
      for (let i = 0; i < part.length; i++) {
        this.state[at >> 2] ^= part[i] << (8 * (at & 3));
        if (++at === rate) {
          keccak(this.state);
          at = 0;
        }
      }
    }
    this.state[at >> 2] ^= 0x1f << (8 * (at & 3));
    this.state[(rate - 1) >> 2] ^= 0x80 << 24;
    this.at = rate;
  }

  byte() {
    if (this.at === this.rate) {
      keccak(this.state);
      this.at = 0;
    }
    const value = (this.state[this.at >> 2] >>> (8 * (this.at & 3))) & 255;
    this.at++;
    return value;
  }

  read(length) {
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++) bytes[i] = this.byte();
    return bytes;
  }
}

const shake128 = (...parts) => new Shake(168, ...parts);
const shake256 = (...parts) => new Shake(136, ...parts);
