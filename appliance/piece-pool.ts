// Buffers on their way from block files to sockets. Large ones are fast; but a reader that stalls keeps its buffer, and ten
// thousand of them must not keep half a megabyte each. So large ones are lent up to a bound, beyond it small ones.

import { CHUNK_BYTES } from './block-file.ts';

/** One read, one write to the socket: 256 KiB lost a third of the speed at 1 MiB. */
export const PIECE_BYTES = 2 * CHUNK_BYTES;
/** What a slow reader gets, and everybody while too many large ones are held up. */
export const SMALL_PIECE_BYTES = 2 ** 16;
/** Before the piece: room for the head of its answer, so that both leave in one write. */
export const HEAD_ROOM_BYTES = 4_096;
/** Large buffers lent at once: 128 MiB per worker. */
const LARGE_LENT_MAX = 256;
const LARGE_FREE_MAX = 64;
const SMALL_FREE_MAX = 256;

export interface Slab {
  readonly buffer: Buffer;
  /** Bytes of a piece that fit behind the room for a head. */
  readonly room: number;
}

export class PiecePool {
  readonly #large: Slab[] = [];
  readonly #small: Slab[] = [];
  #largeLent = 0;
  /** A piece that is dropped without a word, as node:http does with what a dead connection still had to send. */
  readonly #lost = new FinalizationRegistry(() => {
    this.#largeLent -= 1;
  });

  /** For up to `bytes` of a piece; smaller than asked for while many large ones are out. */
  take(bytes: number): Slab {
    if (bytes > SMALL_PIECE_BYTES && this.#largeLent < LARGE_LENT_MAX) return this.takeLarge();
    return this.#small.pop() ?? makeSlab(SMALL_PIECE_BYTES);
  }

  /** A large one whatever is out: for a read from disk, not for as long as a reader takes. */
  takeLarge(): Slab {
    this.#largeLent += 1;
    const free = this.#large.pop();
    if (free !== undefined) return free;
    const slab = makeSlab(PIECE_BYTES);
    this.#lost.register(slab, undefined, slab);
    return slab;
  }

  /** Whether one that is out may stay so for as long as a reader takes. */
  get ample(): boolean {
    return this.#largeLent <= LARGE_LENT_MAX;
  }

  giveBack(slab: Slab): void {
    if (slab.room === SMALL_PIECE_BYTES) {
      if (this.#small.length < SMALL_FREE_MAX) this.#small.push(slab);
      return;
    }
    this.#largeLent -= 1;
    if (this.#large.length < LARGE_FREE_MAX) this.#large.push(slab);
    else this.#lost.unregister(slab);
  }
}

const makeSlab = (room: number): Slab => ({ buffer: Buffer.allocUnsafeSlow(HEAD_ROOM_BYTES + room), room });
