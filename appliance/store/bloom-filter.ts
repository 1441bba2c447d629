// Approximate membership of recent keys in little memory: two Bloom filters of a bounded number of keys each. Keys are added to
// the current one; once it is full it becomes the previous one, and the one before is discarded. A key is remembered for one
// such generation at least and two at most. At most one unknown key in a hundred is taken for a known one.

import { murmurFinalizer } from '../../protocol/hash.ts';

/** Bits and probes per key: (1 − e^(−8/12))⁸ = 0.31 % false positives in a full generation, 0.63 % in two. */
const BITS_PER_KEY = 12;
const PROBES = 8;
export const FALSE_POSITIVES_MAX = 0.01;

export class RotatingBloomFilter {
  readonly #seed: number;
  readonly #generationKeys: () => number;
  /** Keys that the current generation still takes. */
  #remaining: number;
  #current: Uint32Array<ArrayBuffer>;
  #previous = new Uint32Array(1);

  /** `generationKeys` is read at each rotation. A secret seed keeps clients from choosing keys that collide. */
  constructor(spec: { readonly generationKeys: () => number; readonly seed: number }) {
    this.#seed = spec.seed;
    this.#generationKeys = spec.generationKeys;
    this.#remaining = spec.generationKeys();
    this.#current = newBits(this.#remaining);
  }

  get memoryBytes(): number {
    return this.#current.byteLength + this.#previous.byteLength;
  }

  /** `hash` is an integer below 2⁵³, from `hashKey` or `hashPart`. */
  has(hash: number): boolean {
    const first = this.#firstProbe(hash);
    const stride = this.#stride(hash);
    return contains(this.#current, first, stride) || contains(this.#previous, first, stride);
  }

  add(hash: number): void {
    const first = this.#firstProbe(hash);
    const stride = this.#stride(hash);
    // A key that repeats must not use up the generation.
    if (contains(this.#current, first, stride)) return;
    if (this.#remaining === 0) this.#rotate();
    this.#remaining -= 1;
    const size = this.#current.length * 32;
    for (let probe = 0, position = first; probe < PROBES; probe += 1, position = (position + stride) >>> 0) {
      const at = position % size;
      this.#current[at >>> 5]! |= 1 << (at & 31);
    }
  }

  #rotate(): void {
    this.#previous = this.#current;
    this.#remaining = this.#generationKeys();
    this.#current = newBits(this.#remaining);
  }

  #firstProbe(hash: number): number {
    return murmurFinalizer(hash ^ this.#seed);
  }

  /** Odd, so that the probes differ. */
  #stride(hash: number): number {
    return (murmurFinalizer(Math.floor(hash / 2 ** 21) ^ Math.imul(this.#seed, 0x9e3779b1)) | 1) >>> 0;
  }
}

const newBits = (keys: number): Uint32Array<ArrayBuffer> =>
  new Uint32Array(Math.ceil((Math.max(1, keys) * BITS_PER_KEY) / 32));

function contains(bits: Uint32Array, first: number, stride: number): boolean {
  const size = bits.length * 32;
  for (let probe = 0, position = first; probe < PROBES; probe += 1, position = (position + stride) >>> 0) {
    const at = position % size;
    if ((bits[at >>> 5]! & (1 << (at & 31))) === 0) return false;
  }
  return true;
}

/** A hash of 52 bits. */
export function hashKey(key: string): number {
  let low = 0x12345679;
  let high = 0x2545f491;
  for (let at = 0; at < key.length; at += 1) {
    const unit = key.charCodeAt(at);
    low = Math.imul(low ^ unit, 0x9e3779b1);
    high = Math.imul(high ^ unit, 0x85ebca6b);
  }
  return (murmurFinalizer(high ^ low) & (2 ** 20 - 1)) * 2 ** 32 + murmurFinalizer(low ^ (high >>> 15));
}

/** A hash for a part of the asset whose key has this hash. */
export const hashPart = (keyHash: number, part: number): number =>
  murmurFinalizer(keyHash ^ Math.imul(part + 1, 0xc2b2ae35)) + keyHash;
