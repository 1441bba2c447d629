// One block that is being fetched. Any number of readers follow it: as it arrives, or, when it has to be verified first, once it is
// whole. Its checksums are computed from each piece while the CPU's cache has it.

import { createHash, type Hash } from 'node:crypto';
import { crc32 } from '../../runtime/crc32.ts';
import type { Fault } from '../../protocol/faults.ts';
import { CHUNK_BYTES, payloadOf, type BlockPayload } from '../store/block-file.ts';
import { sliceOf, type BlockSlice, type ReceiveBuffer } from '../store/receive-buffer.ts';
import type { Entry } from '../store/volume.ts';

/** Bytes that a reader gets at once. */
export const SLICE_BYTES_MAX = 8 * CHUNK_BYTES;
/** A reader that has at least this much left of a block that is on disk by now reads the rest from there, or from the memory tier. */
const REST_BYTES_MIN = 4 * CHUNK_BYTES;

export class PendingBlock {
  readonly number: number;
  readonly bytes: number;
  /** Bytes that have arrived. */
  received = 0;
  /** Bytes that readers may have. */
  #readable = 0;
  #isWithheld = false;
  fault: Fault | null = null;
  /** Whether the volume is to store it; settled when `decided` resolves, before the first byte arrives. */
  storable = false;
  readonly decided: Promise<void>;
  #resolveDecided!: () => void;
  /** Received, verified and, if there was room, on disk; or failed. */
  readonly done: Promise<void>;
  #resolveDone!: () => void;
  #next: PendingBlock | null = null;
  #waiting: (() => void)[] = [];
  #isWaking = false;
  /** Readers that may hold bytes of the block, and the block before it, whose readers will follow it. */
  #holders = 0;
  #isFinished = false;
  #isStored = false;
  #isKept = false;
  #isReleased = false;
  #received: ReceiveBuffer | null = null;
  /** Of the chunks that have arrived; null for a block that is not to be stored. */
  #crcs: number[] | null = null;
  #crc = 0;
  #hash: Hash | null = null;

  constructor(number: number, bytes: number) {
    this.number = number;
    this.bytes = bytes;
    this.done = new Promise((resolve) => {
      this.#resolveDone = resolve;
    });
    this.decided = new Promise((resolve) => {
      this.#resolveDecided = resolve;
    });
  }

  /** The following block of a fetch that is not stored. It is there as long as this one has readers. */
  get next(): PendingBlock | null {
    return this.#next;
  }

  chain(next: PendingBlock): void {
    this.#next = next;
    next.#holders += 1;
  }

  /** The whole block, from the moment it has been received until it is finished. */
  get payload(): BlockPayload {
    const { chunks, slots } = this.#received!;
    const inPages = slots !== null;
    const crcs = this.#crcs ?? chunks.flatMap((chunk) => payloadOf(chunk).crcs);
    return { bytes: this.bytes, chunks, crcs, inPages };
  }

  /** sha256 of the whole block, if it was to be digested. */
  digest(): string {
    return this.#hash!.digest('hex');
  }

  /** `digested`: readers get nothing before `release`. */
  decide(spec: { readonly storable: boolean; readonly digested: boolean }): void {
    this.storable = spec.storable;
    if (spec.storable) this.#crcs = [];
    this.#isWithheld = spec.digested;
    if (spec.digested) this.#hash = createHash('sha256');
    this.#resolveDecided();
  }

  /** `acquire` is called for the first bytes. */
  append(bytes: Buffer, acquire: (bytes: number) => ReceiveBuffer): void {
    const { chunks } = (this.#received ??= acquire(this.bytes));
    for (let from = 0; from < bytes.length;) {
      const chunk = chunks[Math.floor(this.received / CHUNK_BYTES)]!;
      const at = this.received % CHUNK_BYTES;
      const piece = bytes.subarray(from, from + chunk.length - at);
      piece.copy(chunk, at);
      this.#hash?.update(piece);
      if (this.#crcs !== null) this.#addToCrc(piece, at + piece.length === chunk.length);
      from += piece.length;
      this.received += piece.length;
    }
    if (this.#isWithheld) return;
    this.#readable = this.received;
    this.#wake();
  }

  /** The whole block has been verified. */
  release(): void {
    this.#isWithheld = false;
    this.#readable = this.received;
    this.#wake();
  }

  /** The bytes are not what they should be: no reader gets any. */
  reject(fault: Fault): void {
    this.received = 0;
    this.fail(fault);
  }

  fail(fault: Fault): void {
    this.fault ??= fault;
    this.#isFinished = true;
    this.#resolveDecided();
    this.#wake();
    this.#resolveDone();
    this.#recycle();
  }

  /** `kept`: the entry as whose block it is on disk, and found in memory by its next readers. Null: it is let go. */
  finish(spec: { readonly stored: boolean; readonly kept: Entry | null }): void {
    this.#resolveDone();
    this.#isFinished = true;
    this.#isStored = spec.stored;
    if (spec.kept !== null && this.#received?.slots != null) {
      this.#isKept = true;
      this.#received.keep(spec.kept, this.number);
    }
    this.#recycle();
  }

  /**
   * Bytes [from, to) of the block as they arrive. Each piece belongs to the reader until it asks for the next. Ends early for a reader
   * that is slower than the disk: the rest is there. Throws the fault of the fetch.
   */
  follow(from: number, to: number): AsyncGenerator<BlockSlice> {
    this.#holders += 1;
    return this.#follow(from, to);
  }

  async *#follow(from: number, to: number): AsyncGenerator<BlockSlice> {
    let isDone = false;
    try {
      for (let at = from; at < to;) {
        if (this.#isStored && at > from && to - at >= REST_BYTES_MIN) break;
        if (this.#readable > at) {
          const slice = sliceOf(this.#received!, at, Math.min(this.#readable, to, at + SLICE_BYTES_MAX));
          // Its slots have other bytes by now: the block is on disk.
          if (slice === null) break;
          yield slice;
          at += slice.length;
        } else if (this.fault !== null) throw this.fault;
        else await new Promise<void>((resolve) => this.#waiting.push(resolve));
      }
      isDone = true;
    } finally {
      // A reader that stops early may still be sending a piece of a buffer: then that is left to the garbage collector.
      if (isDone || this.#received?.slots !== null) this.#leave();
    }
  }

  #addToCrc(piece: Buffer, isEnd: boolean): void {
    this.#crc = crc32(piece, this.#crc);
    if (!isEnd) return;
    this.#crcs!.push(this.#crc);
    this.#crc = 0;
  }

  #leave(): void {
    this.#holders -= 1;
    this.#recycle();
  }

  #recycle(): void {
    if (!this.#isFinished || this.#holders > 0 || this.#isReleased) return;
    this.#isReleased = true;
    if (!this.#isKept) this.#received?.release();
    this.#received = null;
    // A reader that has come to the end of this block begins to follow the next one in this turn.
    setImmediate(() => {
      const next = this.#next;
      this.#next = null;
      if (next !== null) next.#leave();
    });
  }

  /** Wakes the readers once for all that the socket delivered in this turn, because each waking costs a write per reader. */
  #wake(): void {
    if (this.#isWaking || this.#waiting.length === 0) return;
    this.#isWaking = true;
    setImmediate(() => {
      this.#isWaking = false;
      const waiting = this.#waiting;
      this.#waiting = [];
      for (const resolve of waiting) resolve();
    });
  }
}
