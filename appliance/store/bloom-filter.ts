// Which names came by lately, in little memory: two Bloom filters of a bounded number of names each. The young one takes
// names; when it has taken its number the old one is forgotten. A name is remembered for at least one such generation and at
// most two; a name that never came is taken for one that did in at most one case of a hundred.

import { murmurFinalizer } from '../../protocol/hash.ts';

/** Bits a name and probes: (1 − e^(−8/12))⁸ = 0.31 % false positives in a full generation, 0.63 % in two. */
const BITS_PER_NAME = 12;
const PROBES = 8;
export const FALSE_POSITIVES_MAX = 0.01;

export class RotatingBloomFilter {
  readonly #seed: number;
  readonly #generationNames: () => number;
  #left: number;
  #young: Uint32Array<ArrayBuffer>;
  #old = new Uint32Array(1);

  /** `generationNames` is asked at each turn. Who does not know the seed cannot find names that look alike. */
  constructor(spec: { readonly generationNames: () => number; readonly seed: number }) {
    this.#seed = spec.seed;
    this.#generationNames = spec.generationNames;
    this.#left = spec.generationNames();
    this.#young = bitsFor(this.#left);
  }

  get memoryBytes(): number {
    return this.#young.byteLength + this.#old.byteLength;
  }

  /** `name` is an integer up to 2⁵³. */
  has(name: number): boolean {
    const step = this.#step(name);
    const start = this.#start(name);
    return holds(this.#young, start, step) || holds(this.#old, start, step);
  }

  add(name: number): void {
    const step = this.#step(name);
    const start = this.#start(name);
    // What comes again and again must not wear the generation out.
    if (holds(this.#young, start, step)) return;
    if (this.#left === 0) {
      this.#old = this.#young;
      this.#left = this.#generationNames();
      this.#young = bitsFor(this.#left);
    }
    this.#left -= 1;
    const size = this.#young.length * 32;
    for (let probe = 0, hash = start; probe < PROBES; probe += 1, hash = (hash + step) >>> 0) {
      const at = hash % size;
      this.#young[at >>> 5]! |= 1 << (at & 31);
    }
  }

  #start(name: number): number {
    return murmurFinalizer(name ^ this.#seed);
  }

  /** Odd, so that the probes differ. */
  #step(name: number): number {
    return (murmurFinalizer(Math.floor(name / 2 ** 21) ^ Math.imul(this.#seed, 0x9e3779b1)) | 1) >>> 0;
  }
}

const bitsFor = (names: number): Uint32Array<ArrayBuffer> =>
  new Uint32Array(Math.ceil((Math.max(1, names) * BITS_PER_NAME) / 32));

function holds(bits: Uint32Array, start: number, step: number): boolean {
  const size = bits.length * 32;
  for (let probe = 0, hash = start; probe < PROBES; probe += 1, hash = (hash + step) >>> 0) {
    const at = hash % size;
    if ((bits[at >>> 5]! & (1 << (at & 31))) === 0) return false;
  }
  return true;
}

/** A name for a text, of 52 bits. */
export function hashKey(text: string): number {
  let low = 0x12345679;
  let high = 0x2545f491;
  for (let at = 0; at < text.length; at += 1) {
    const unit = text.charCodeAt(at);
    low = Math.imul(low ^ unit, 0x9e3779b1);
    high = Math.imul(high ^ unit, 0x85ebca6b);
  }
  return (murmurFinalizer(high ^ low) & (2 ** 20 - 1)) * 2 ** 32 + murmurFinalizer(low ^ (high >>> 15));
}

/** A name for a part of what has a name of 52 bits. */
export const hashPart = (name: number, part: number): number =>
  murmurFinalizer(name ^ Math.imul(part + 1, 0xc2b2ae35)) + name;
