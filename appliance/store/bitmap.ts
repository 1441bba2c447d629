// Which blocks of an asset are present: a fixed-size set of small integers, as small in memory as it can be.

/** How many bits of a byte are set. */
export const BITS = Uint8Array.from({ length: 256 }, (_, byte) => {
  let bits = 0;
  for (let rest = byte; rest > 0; rest >>= 1) bits += rest & 1;
  return bits;
});

/** So many bits are kept in a number. */
const FEW = 31;
const NONE = new Uint8Array(0);

/** A fixed-size set of block numbers. A segment of a film has one or two: for those a number will do, where an array takes 200 bytes. */
export class Bitmap {
  readonly #size: number;
  #few = 0;
  /** Null where the set is one of few. */
  readonly #many: Uint8Array | null;
  #count = 0;

  constructor(size: number, from: Uint8Array = NONE) {
    this.#size = size;
    this.#many = size <= FEW ? null : new Uint8Array(this.runs);
    for (let run = 0; run < Math.min(this.runs, from.length); run += 1) {
      // What lies beyond the size is nobody's block.
      const byte = from[run]! & (2 ** Math.min(8, size - run * 8) - 1);
      if (this.#many === null) this.#few |= byte << (run * 8);
      else this.#many[run] = byte;
      this.#count += BITS[byte]!;
    }
  }

  get count(): number {
    return this.#count;
  }

  /** Of eight blocks each, the last perhaps of fewer. */
  get runs(): number {
    return Math.ceil(this.#size / 8);
  }

  /** The eight bits of a run. */
  run(at: number): number {
    return this.#many === null ? (this.#few >> (at * 8)) & 0xff : this.#many[at]!;
  }

  /** Runs with one block at least. */
  get occupiedRuns(): number {
    let occupied = 0;
    for (let at = 0; at < this.runs; at += 1) if (this.run(at) !== 0) occupied += 1;
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

  /** A byte per run. */
  toBytes(): Uint8Array {
    return Uint8Array.from({ length: this.runs }, (_, at) => this.run(at));
  }

  *[Symbol.iterator](): IterableIterator<number> {
    for (let at = 0; at < this.#size; at += 1) if (this.has(at)) yield at;
  }

  #flip(at: number): void {
    if (this.#many === null) this.#few ^= 1 << at;
    else this.#many[at >> 3]! ^= 1 << (at & 7);
  }
}
