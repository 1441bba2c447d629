// Reading stored blocks in a worker: a small cache of open files, each chunk checked against its crc32 when it is first
// read through an open file. A first read may touch the disk and goes through the thread pool; a later one comes from the
// page cache and is read on the spot, which is cheaper than the trip.

import { closeSync, readSync } from 'node:fs';
import { open as openAsync, read as readAsync } from 'node:fs';
import { promisify } from 'node:util';
import { LRUCache } from 'lru-cache';
import { Fault, isFault } from '../protocol/faults.ts';
import { BLOCK_BYTES, checkChunk, CHUNK_BYTES, decodeHead, HEAD_BYTES, type BlockHead } from './block-file.ts';
import { blockPath } from './volume-directory.ts';
import type { AssetView } from './link.ts';

/** One read, one write to the socket: 256 KiB lost a third of the speed at 1 MiB. */
export const PIECE_BYTES = 2 * CHUNK_BYTES;
const OPEN_FILES_MAX = 1_024;
const FREE_BUFFERS_MAX = 64;

const open = promisify(openAsync);
const read = promisify(readAsync);

/** Bytes on their way to a socket; `release` gives the buffer back once they are sent. */
export interface Piece {
  readonly bytes: Buffer;
  readonly release: () => void;
}

interface OpenBlock {
  readonly fd: number;
  readonly path: string;
  readonly head: BlockHead;
  /** Bit per chunk that was read and checked. */
  checked: number;
  busy: number;
  closing: boolean;
  onClosed: (() => void)[];
}

export class BlockReader {
  readonly #open = new LRUCache<string, OpenBlock>({ max: OPEN_FILES_MAX, dispose: (block) => closeWhenIdle(block) });
  readonly #opening = new Map<string, Promise<OpenBlock | null>>();
  readonly #free: Buffer[] = [];

  /** Whether the block lies on disk, as far as can be told without reading it. */
  async has(asset: AssetView, number: number): Promise<boolean> {
    return (
      (this.#open.get(nameOf(asset.volume, asset.id, number)) ??
        (await this.#openBlock(asset, number).catch(() => null))) !== null
    );
  }

  /**
   * The next piece of [from, to), or null where its block is not on disk. Throws `disk_corrupt` or `disk_failed`: the
   * storekeeper is then asked for the bytes.
   */
  read(asset: AssetView, from: number, to: number): Piece | null | Promise<Piece | null> {
    const number = Math.floor(from / BLOCK_BYTES);
    const block = this.#open.get(nameOf(asset.volume, asset.id, number));
    const start = from - number * BLOCK_BYTES;
    const end = Math.min(to - number * BLOCK_BYTES, BLOCK_BYTES, start + PIECE_BYTES);
    if (block === undefined || !isChecked(block, start, end)) return this.#readCold(asset, number, start, end);
    const buffer = this.#free.pop() ?? Buffer.allocUnsafeSlow(PIECE_BYTES);
    const got = readSync(block.fd, buffer, 0, end - start, HEAD_BYTES + start);
    if (got === end - start) return this.#piece(buffer, 0, got);
    this.#giveBack(buffer);
    this.#open.delete(nameOf(asset.volume, asset.id, number));
    throw new Fault('disk_corrupt', `block file ${block.path} became shorter while it was open`);
  }

  /** Resolves when none of these blocks is open here any more. */
  async forget(
    blocks: readonly { readonly volume: number; readonly id: number; readonly number: number }[],
  ): Promise<void> {
    await Promise.all(
      blocks.map(async ({ volume, id, number }) => {
        const name = nameOf(volume, id, number);
        await this.#opening.get(name)?.catch(() => null);
        const block = this.#open.peek(name);
        if (block === undefined) return;
        const closed = new Promise<void>((resolve) => block.onClosed.push(resolve));
        this.#open.delete(name);
        await closed;
      }),
    );
  }

  forgetAll(): void {
    this.#open.clear();
  }

  async #readCold(asset: AssetView, number: number, start: number, end: number): Promise<Piece | null> {
    const block = this.#open.get(nameOf(asset.volume, asset.id, number)) ?? (await this.#openBlock(asset, number));
    if (block === null) return null;
    const chunk = Math.floor(start / CHUNK_BYTES);
    const chunkStart = chunk * CHUNK_BYTES;
    const chunkBytes = Math.min(CHUNK_BYTES, block.head.bytes - chunkStart);
    const buffer = this.#free.pop() ?? Buffer.allocUnsafeSlow(PIECE_BYTES);
    block.busy += 1;
    try {
      const { bytesRead } = await read(block.fd, buffer, 0, chunkBytes, HEAD_BYTES + chunkStart);
      checkChunk(block.head, chunk, buffer.subarray(0, bytesRead), block.path);
      block.checked |= 1 << chunk;
    } catch (error) {
      this.#giveBack(buffer);
      this.#open.delete(nameOf(asset.volume, asset.id, number));
      throw error;
    } finally {
      block.busy -= 1;
      if (block.closing) closeWhenIdle(block);
    }
    return this.#piece(buffer, start - chunkStart, Math.min(end - chunkStart, chunkBytes));
  }

  #openBlock(asset: AssetView, number: number): Promise<OpenBlock | null> {
    const name = nameOf(asset.volume, asset.id, number);
    const under = this.#opening.get(name);
    if (under !== undefined) return under;
    const opening = openBlock(asset, number)
      .then((block) => {
        if (block !== null) this.#open.set(name, block);
        return block;
      })
      .finally(() => this.#opening.delete(name));
    this.#opening.set(name, opening);
    return opening;
  }

  #piece(buffer: Buffer, start: number, end: number): Piece {
    return { bytes: buffer.subarray(start, end), release: () => this.#giveBack(buffer) };
  }

  #giveBack(buffer: Buffer): void {
    if (this.#free.length < FREE_BUFFERS_MAX) this.#free.push(buffer);
  }
}

const nameOf = (volume: number, id: number, number: number): string => `${volume}/${id}/${number}`;

function isChecked(block: OpenBlock, start: number, end: number): boolean {
  for (let chunk = Math.floor(start / CHUNK_BYTES); chunk * CHUNK_BYTES < end; chunk += 1)
    if ((block.checked & (1 << chunk)) === 0) return false;
  return true;
}

/** Null where there is no file or it belongs to another asset. */
async function openBlock(asset: AssetView, number: number): Promise<OpenBlock | null> {
  const path = blockPath(asset.directory, asset.id, number);
  let fd: number;
  try {
    fd = await open(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
  try {
    const page = Buffer.allocUnsafe(HEAD_BYTES);
    const { bytesRead } = await read(fd, page, 0, HEAD_BYTES, 0);
    const head = decodeHead(page.subarray(0, bytesRead), path);
    if (head.key === asset.key && head.version === asset.version && head.number === number) {
      return { fd, path, head, checked: 0, busy: 0, closing: false, onClosed: [] };
    }
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  closeSync(fd);
  return null;
}

function closeWhenIdle(block: OpenBlock): void {
  block.closing = true;
  if (block.busy > 0) return;
  closeSync(block.fd);
  for (const resolve of block.onClosed) resolve();
  block.onClosed = [];
}

/** A fault of the disk that the storekeeper can mend by fetching again. */
export function isDiskFault(error: unknown): boolean {
  return isFault(error) ? error.code === 'disk_corrupt' : typeof (error as NodeJS.ErrnoException).code === 'string';
}
