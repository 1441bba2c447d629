// How far to fetch ahead of one sequential reader: twice what it reads in the time of an upstream fetch. With once that it would go on
// getting what it gets now. With twice it gets more where further connections to the origin bring more, and where they do not, its rate
// stays, and so does what is fetched ahead.

import type { Clock } from '../../runtime/clock.ts';
import { BLOCK_BYTES } from '../store/block-file.ts';

const HEADROOM = 2;
/** The rate is that of the last so many blocks. */
const RATE_BLOCKS = 8;
/** A reader that takes longer than this for a slice of up to half a mebibyte is slow. */
const SLOW_MS = 100;

export class ReadAhead {
  readonly #clock: Pick<Clock, 'monotonic'>;
  /** When the reader got its first bytes, and when it began each block after that. */
  readonly #begunMs: number[] = [];
  #slicedMs = 0;
  /** It took long for the last slice. */
  isSlow = false;

  constructor(clock: Pick<Clock, 'monotonic'>) {
    this.#clock = clock;
  }

  /** The reader begins a block, and an upstream fetch takes `fetchMs`. How many bytes should be on their way ahead of it. */
  bytesAhead(fetchMs: number): number {
    const nowMs = this.#clock.monotonic();
    const firstMs = this.#begunMs[0];
    if (firstMs === undefined) return 0;
    const bytes = this.#begunMs.length * BLOCK_BYTES;
    this.#begunMs.push(nowMs);
    if (this.#begunMs.length > RATE_BLOCKS) this.#begunMs.shift();
    return (HEADROOM * bytes * fetchMs) / Math.max(1, nowMs - firstMs);
  }

  /** The reader gets a slice, and has it until `sliceTaken`. */
  sliceGiven(): void {
    this.#slicedMs = this.#clock.monotonic();
    if (this.#begunMs.length === 0) this.#begunMs.push(this.#slicedMs);
  }

  sliceTaken(): void {
    this.isSlow = this.#clock.monotonic() - this.#slicedMs > SLOW_MS;
  }
}
