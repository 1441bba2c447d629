// Where the bytes of a block arrive: slots of the memory tier, which workers read while they arrive and in which the block stays, or
// where there are none, buffers of this process. Those of whole blocks are used again: a garbage collector that has to find each of
// them takes more time than everything else about a miss.

import type { SlotSlice } from '../io/shared-memory.ts';
import { BLOCK_BYTES, CHUNK_BYTES } from './block-file.ts';
import type { Entry } from './volume.ts';

const FREE_BUFFERS_MAX = 32;
/** Shorter blocks have buffers of their own size. */
const POOLED_BYTES_MIN = BLOCK_BYTES / 4;

/** A slot of the memory tier, in the generation in which it has these bytes. */
export interface BufferSlot {
  readonly slot: number;
  readonly generation: number;
}

/** Bytes of a block, in order. */
export interface BlockSlice {
  readonly length: number;
  /** To be used, or copied, in this turn of the event loop when they have slots. */
  readonly buffers: readonly Buffer[];
  /** The same where workers find them; null when they cannot read there. */
  readonly slices: readonly SlotSlice[] | null;
  /** Whether these are still the bytes of the block. */
  readonly isCurrent: () => boolean;
}

/** A block in memory. */
export interface BlockMemory {
  /** Where each chunk of the block goes. */
  readonly chunks: readonly Buffer[];
  /** Where workers find each chunk; null when they cannot read there. */
  readonly slots: readonly BufferSlot[] | null;
  /** Whether its slot has the bytes of this chunk still; always true before `keep` or `release`. */
  readonly holds: (chunk: number) => boolean;
}

export interface ReceiveBuffer extends BlockMemory {
  /** The block is on disk as block `number` of the entry: it may stay here for its next readers. */
  keep(entry: Entry, number: number): void;
  /** Nobody will look for the block here any more. */
  release(): void;
}

/** Bytes [from, to) of the block. Null if its slots have other bytes by now. */
export function sliceOf(memory: BlockMemory, from: number, to: number): BlockSlice | null {
  const { chunks, slots, holds } = memory;
  const buffers: Buffer[] = [];
  const slices: SlotSlice[] = [];
  for (let at = from; at < to;) {
    const chunk = Math.floor(at / CHUNK_BYTES);
    const start = at % CHUNK_BYTES;
    const bytes = Math.min(to - at, CHUNK_BYTES - start);
    if (!holds(chunk)) return null;
    buffers.push(chunks[chunk]!.subarray(start, start + bytes));
    if (slots !== null) slices.push({ ...slots[chunk]!, from: start, bytes });
    at += bytes;
  }
  const [first, last] = [Math.floor(from / CHUNK_BYTES), Math.floor((to - 1) / CHUNK_BYTES)];
  const isCurrent = (): boolean => {
    for (let chunk = first; chunk <= last; chunk += 1) if (!holds(chunk)) return false;
    return true;
  };
  return { length: to - from, buffers, slices: slots === null ? null : slices, isCurrent };
}

/** Buffers of this process. */
export class HeapBuffers {
  readonly #free: Buffer[] = [];

  receive(bytes: number): ReceiveBuffer {
    const isPooled = bytes >= POOLED_BYTES_MIN;
    const buffer = (isPooled ? this.#free.pop() : undefined) ?? Buffer.allocUnsafeSlow(isPooled ? BLOCK_BYTES : bytes);
    const chunks: Buffer[] = [];
    for (let at = 0; at < bytes; at += CHUNK_BYTES) chunks.push(buffer.subarray(at, Math.min(bytes, at + CHUNK_BYTES)));
    const release = (): void => {
      if (isPooled && this.#free.length < FREE_BUFFERS_MAX) this.#free.push(buffer);
    };
    return { chunks, slots: null, holds: () => true, keep: release, release };
  }
}
