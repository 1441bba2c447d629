// A compact set of block numbers: which blocks of an asset are present.

/** Number of bits set, by byte value. */
export const BITS_SET = Uint8Array.from({ length: 256 }, (_, byte) => {
  let bits = 0;
  for (let rest = byte; rest > 0; rest >>= 1) bits += rest & 1;
  return bits;
});

/** Bits that fit into a small integer of V8. */
const INLINE_BITS_MAX = 31;
const EMPTY = new Uint8Array(0);

/**
 * A set of numbers below a size. A segment of a film has one or two blocks: such a set is kept in one number, because a typed array would
 * take 200 bytes. A larger set takes memory up to the highest number that was ever in it: the size is a claim of the origin.
 */
export class Bitmap {
  readonly #size: number;
  #inline = 0;
  /** Null where the bits fit into `#inline`. Runs beyond its end are empty. */
  #bytes: Uint8Array | null;
  #count = 0;

  constructor(size: number, from: Uint8Array = EMPTY) {
    this.#size = size;
    const given = Math.min(this.runs, from.length);
    this.#bytes = size <= INLINE_BITS_MAX ? null : given === 0 ? EMPTY : new Uint8Array(given);
    for (let run = 0; run < given; run += 1) {
      // Bits beyond the size are ignored.
      const byte = from[run]! & (2 ** Math.min(8, size - run * 8) - 1);
      if (this.#bytes === null) this.#inline |= byte << (run * 8);
      else this.#bytes[run] = byte;
      this.#count += BITS_SET[byte]!;
    }
  }

  get count(): number {
    return this.#count;
  }

  /** Runs of eight blocks, of which the last may have fewer. */
  get runs(): number {
    return Math.ceil(this.#size / 8);
  }

  /** The eight bits of a run. */
  run(at: number): number {
    return this.#bytes === null ? (this.#inline >> (at * 8)) & 0xff : (this.#bytes[at] ?? 0);
  }

  /** Runs of which at least one block is present. */
  get occupiedRuns(): number {
    let occupied = 0;
    for (let at = 0; at < this.#usedRuns; at += 1) if (this.run(at) !== 0) occupied += 1;
    return occupied;
  }

  has(at: number): boolean {
    return at < this.#size && (this.run(at >> 3) & (1 << (at & 7))) !== 0;
  }

  add(at: number): void {
    if (at >= this.#size || this.has(at)) return;
    this.#flip(at);
    this.#count += 1;
  }

  delete(at: number): void {
    if (!this.has(at)) return;
    this.#flip(at);
    this.#count -= 1;
  }

  /** One byte per run, up to the last that is not empty or a few more. */
  toBytes(): Uint8Array {
    return Uint8Array.from({ length: this.#usedRuns }, (_, at) => this.run(at));
  }

  *[Symbol.iterator](): IterableIterator<number> {
    for (let at = 0; at < Math.min(this.#size, this.#usedRuns * 8); at += 1) if (this.has(at)) yield at;
  }

  /** Runs behind these are empty. */
  get #usedRuns(): number {
    return this.#bytes === null ? this.runs : this.#bytes.length;
  }

  #flip(at: number): void {
    if (this.#bytes === null) {
      this.#inline ^= 1 << at;
      return;
    }
    const run = at >> 3;
    if (run >= this.#bytes.length) {
      const grown = new Uint8Array(Math.min(this.runs, Math.max(run + 1, 2 * this.#bytes.length)));
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    this.#bytes[run]! ^= 1 << (at & 7);
  }
}
