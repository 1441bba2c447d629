// The worker's view of the memory tier: which blocks are in it, and where. The storekeeper announces them and withdraws them
// (store/memory-tier.ts); what is here may be read until the end of this turn of the event loop, and not after the confirmation that
// it was withdrawn. While the storekeeper is down nothing writes to the memory, so that what is here stays right until the next one links.

import type { NativeBuffer } from '../io/nonblocking-io.ts';
import { MappedMemory, type MemoryName, type MemorySlice } from '../io/shared-memory.ts';
import { BLOCK_BYTES } from '../store/block-file.ts';
import { SLOT_BYTES, type BlockName, type ResidentBlock } from '../store/memory-tier.ts';
import type { AssetView } from '../http/asset.ts';

/** Bytes in the memory tier, to be used in this turn of the event loop. */
export interface ResidentBytes {
  readonly memory: MappedMemory;
  readonly bytes: number;
  readonly slices: readonly MemorySlice[];
}

export class ResidentBlocks {
  readonly #blocks = new Map<string, ResidentBlock>();
  #memory: MappedMemory | null = null;

  /** The storekeeper's memory, if it is mapped. */
  get memory(): MappedMemory | null {
    return this.#memory;
  }

  /** The storekeeper's memory. Without it (it cannot be mapped) nothing is ever resident. */
  attach(name: MemoryName): void {
    this.detach();
    this.#memory = MappedMemory.open(name);
  }

  /** A new storekeeper has other memory. */
  detach(): void {
    this.#blocks.clear();
    this.#memory?.unmap();
    this.#memory = null;
  }

  add(blocks: readonly ResidentBlock[]): void {
    if (this.#memory === null) return;
    for (const block of blocks) this.#blocks.set(blockName(block), block);
  }

  remove(blocks: readonly BlockName[]): void {
    for (const block of blocks) this.#blocks.delete(blockName(block));
  }

  has(name: string): boolean {
    return this.#blocks.has(name);
  }

  /** Where the beginning of [from, to) of the asset lies, as far as its block and `bytesMax` go. Null if the block is not resident. */
  find(
    asset: AssetView,
    range: { readonly from: number; readonly to: number },
    bytesMax: number,
  ): ResidentBytes | null {
    const { from, to } = range;
    const block = this.#blocks.get(nameOfBlock(asset, Math.floor(from / BLOCK_BYTES)));
    if (block === undefined || block.key !== asset.key || block.version !== asset.version) return null;
    const start = from % BLOCK_BYTES;
    const end = Math.min(start + (to - from), block.bytes, start + bytesMax);
    return { memory: this.#memory!, bytes: end - start, slices: slicesOf(block, start, end) };
  }
}

/** Copies bytes [from, to) of what was found into a buffer. */
export function copyResident(
  { memory, slices }: ResidentBytes,
  range: { readonly from: number; readonly to: number },
  into: { readonly memory: NativeBuffer; readonly at: number },
): void {
  let at = 0;
  for (const slice of slices) {
    const [from, to] = [Math.max(range.from, at) - at, Math.min(range.to, at + slice.bytes) - at] as const;
    if (from < to)
      memory.copy({ at: slice.at + from, bytes: to - from }, into.memory, into.at + at + from - range.from);
    at += slice.bytes;
  }
}

/** Slots that are neighbours make one slice. */
function slicesOf({ slots }: ResidentBlock, start: number, end: number): MemorySlice[] {
  const slices: { at: number; bytes: number }[] = [];
  for (let from = start; from < end;) {
    const slot = Math.floor(from / SLOT_BYTES);
    const at = slots[slot]! * SLOT_BYTES + (from % SLOT_BYTES);
    const bytes = Math.min(end, (slot + 1) * SLOT_BYTES) - from;
    const last = slices.at(-1);
    if (last !== undefined && last.at + last.bytes === at) last.bytes += bytes;
    else slices.push({ at, bytes });
    from += bytes;
  }
  return slices;
}

export const blockName = ({ volume, id, number }: BlockName): string => `${volume}/${id}/${number}`;

/** The name of a block of an asset. */
export const nameOfBlock = ({ volume, id }: AssetView, number: number): string => `${volume}/${id}/${number}`;
