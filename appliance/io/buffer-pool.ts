// Buffers on their way from block files to sockets. Large ones are fast; but a reader that stalls keeps its buffer, and ten
// thousand of them must not keep half a megabyte each. So the larger ones are lent up to a bound, beyond it the next smaller.

import { CHUNK_BYTES } from '../store/block-file.ts';
import { allocateHugePage, NativeBuffer } from '../store/nonblocking-io.ts';

/** One read, one write to the socket: 256 KiB lost a third of the speed at 1 MiB. */
export const PIECE_BYTES = 2 * CHUNK_BYTES;
/** What a slow reader gets: 64 KiB took an eighth more of the CPU that an audience of 5,000 takes, 512 KiB a tenth less. */
export const SLOW_PIECE_BYTES = 2 ** 17;
/** What everybody gets while too many others are held up. */
const SMALL_PIECE_BYTES = 2 ** 16;
/** Before the piece: room for the head of its answer, so that both leave in one write. */
export const HEAD_ROOM_BYTES = 4_096;
/**
 * What lies in a worker's huge page: as good as every hot answer goes through these. In pages from here and there 1 MiB took
 * a twentieth longer, or a fifth where they happened to share places in the core's cache.
 */
const HUGE_LARGE = 3;
const HUGE_SMALL = 7;

export interface PooledBuffer {
  readonly memory: NativeBuffer;
  readonly buffer: Buffer;
  /** Bytes of a piece that fit behind the room for a head. */
  readonly room: number;
  /** Lies in the huge page. */
  readonly huge: boolean;
}

/** Buffers of one size: so many may be out at once, so many are kept for the next, those in the huge page before others. */
interface SizeClass {
  readonly room: number;
  readonly lentMax: number;
  readonly freeMax: number;
  readonly free: PooledBuffer[];
  readonly freeHuge: PooledBuffer[];
  lent: number;
}

export class BufferPool {
  /** 128 MiB and 512 MiB may be out per worker, and what 64 KiB for each further reader come to. */
  readonly #large = shelf(PIECE_BYTES, 256, 64);
  readonly #slow = shelf(SLOW_PIECE_BYTES, 4_096, 128);
  readonly #small = shelf(SMALL_PIECE_BYTES, Number.POSITIVE_INFINITY, 256);
  /** A piece that is dropped without a word, as node:http does with what a dead connection still had to send. */
  readonly #lost = new FinalizationRegistry<SizeClass>((of) => {
    of.lent -= 1;
  });

  constructor() {
    const page = allocateHugePage();
    let at = 0;
    for (const [of, slabs] of [
      [this.#large, HUGE_LARGE],
      [this.#small, HUGE_SMALL],
    ] as const)
      for (let count = 0; count < slabs; count += 1) {
        const bytes = HEAD_ROOM_BYTES + of.room;
        of.freeHuge.push(this.#slab(of, page.subarray(at, at + bytes), true));
        at += bytes;
      }
  }

  /** For up to `bytes` of a piece; smaller than asked for while many large ones are out. */
  acquire(bytes: number): PooledBuffer {
    if (bytes > SLOW_PIECE_BYTES && hasSome(this.#large)) return this.#lend(this.#large);
    return this.#lend(bytes > SMALL_PIECE_BYTES && hasSome(this.#slow) ? this.#slow : this.#small);
  }

  /** A large one whatever is out: for a read from disk, not for as long as a reader takes. */
  acquireLarge(): PooledBuffer {
    return this.#lend(this.#large);
  }

  /** Whether a large one that is out may stay so for as long as a reader takes. */
  get hasLarge(): boolean {
    return this.#large.lent <= this.#large.lentMax;
  }

  release(slab: PooledBuffer): void {
    const of = this.#shelfOf(slab);
    of.lent -= 1;
    if (slab.huge) of.freeHuge.push(slab);
    else if (of.free.length < of.freeMax) of.free.push(slab);
    else this.#lost.unregister(slab);
  }

  #lend(of: SizeClass): PooledBuffer {
    of.lent += 1;
    return (
      of.freeHuge.pop() ?? of.free.pop() ?? this.#slab(of, Buffer.allocUnsafeSlow(HEAD_ROOM_BYTES + of.room), false)
    );
  }

  #slab(of: SizeClass, buffer: Buffer, huge: boolean): PooledBuffer {
    const slab = { memory: new NativeBuffer(buffer), buffer, room: of.room, huge };
    this.#lost.register(slab, of, slab);
    return slab;
  }

  #shelfOf({ room }: PooledBuffer): SizeClass {
    if (room === PIECE_BYTES) return this.#large;
    return room === SLOW_PIECE_BYTES ? this.#slow : this.#small;
  }
}

const hasSome = ({ lent, lentMax }: SizeClass): boolean => lent < lentMax;
const shelf = (room: number, lentMax: number, freeMax: number): SizeClass => ({
  room,
  lentMax,
  freeMax,
  free: [],
  freeHuge: [],
  lent: 0,
});
