// Reading stored blocks in a worker: a small cache of open files, each chunk checked against its crc32 when it is first
// read through an open file. A first read may touch the disk and goes through the thread pool; a later one, and one of a
// block that has just been written, is read on the spot, which is cheaper than the trip, where the page cache has it.

import { closeSync, openSync, readSync } from 'node:fs';
import { open as openAsync, read as readAsync } from 'node:fs';
import { promisify } from 'node:util';
import { LRUCache } from 'lru-cache';
import { Fault, isFault } from '../../protocol/faults.ts';
import { BLOCK_BYTES, checkChunk, CHUNK_BYTES, decodeHead, HEAD_BYTES } from '../store/block-file.ts';
import { DISK_THREADS } from '../ipc.ts';
import type { AssetView } from '../http/asset.ts';
import { UNSUPPORTED, WOULD_BLOCK } from '../store/nonblocking-io.ts';
import { HEAD_ROOM_BYTES, type BufferPool, SLOW_PIECE_BYTES, type PooledBuffer } from '../io/buffer-pool.ts';
import type { ByteSlice } from '../io/byte-stream.ts';
import { blockPath } from '../store/layout.ts';

/** Blocks that stay open: as many as the page cache may be thought to hold, in a quarter of memory. */
const MEMORY_SHARE = 1 / 4;
const OPEN_BLOCKS_MIN = 256;
const OPEN_BLOCKS_MAX = 65_536;
/** Files that are none: sockets to storekeeper and origin, blocks being opened. */
const OTHER_FILES = 2_048;
/** Cold reads under way at once, each with a large buffer; the others wait without one. Some threads are left for opening. */
const COLD_READS_MAX = (DISK_THREADS * 3) / 4;

const ALL_CHUNKS = 2 ** (BLOCK_BYTES / CHUNK_BYTES) - 1;

const open = promisify(openAsync);
const read = promisify(readAsync);

/** What a worker may keep open, of what the system lets it have. */
export function openBlocksMax(spec: {
  readonly memoryBytes: number;
  readonly filesMax: number;
  readonly connectionsMax: number;
}): number {
  const byMemory = (spec.memoryBytes * MEMORY_SHARE) / BLOCK_BYTES;
  const byFiles = spec.filesMax - spec.connectionsMax - OTHER_FILES;
  return Math.floor(Math.min(OPEN_BLOCKS_MAX, Math.max(OPEN_BLOCKS_MIN, Math.min(byMemory, byFiles))));
}

interface OpenBlock {
  readonly fd: number;
  readonly path: string;
  readonly bytes: number;
  readonly crcs: readonly number[];
  /** Bit per chunk that was read and checked. */
  checked: number;
  busy: number;
  closing: boolean;
  onClosed: (() => void)[];
}

export class BlockReader {
  readonly #open: LRUCache<string, OpenBlock>;
  readonly #opening = new Map<string, Promise<OpenBlock | null>>();
  readonly #pool: BufferPool;
  readonly #waiting: (() => void)[] = [];
  #coldReads = 0;

  constructor(pool: BufferPool, openBlocksMax: number) {
    this.#pool = pool;
    this.#open = new LRUCache({ max: openBlocksMax, dispose: (block) => closeWhenIdle(block) });
  }

  /** Whether the block lies on disk, as far as can be told without reading it. */
  async has(asset: AssetView, number: number): Promise<boolean> {
    return (
      (this.#open.get(nameOf(asset.volume, asset.id, number)) ??
        (await this.#openBlock(asset, number, false).catch(() => null))) !== null
    );
  }

  /**
   * The next piece of [from, to), or null where its block is not on disk. Throws `disk_corrupt` or `disk_failed`: the
   * storekeeper is then asked for the bytes. `landed`: the block was written a moment ago.
   */
  read(asset: AssetView, from: number, to: number, landed: boolean): ByteSlice | null | Promise<ByteSlice | null> {
    const slab = this.#pool.acquire(to - from);
    let bytes: number;
    try {
      bytes = this.readCached(asset, from, to, slab);
    } catch (error) {
      this.#pool.release(slab);
      throw error;
    }
    if (bytes > 0) return this.#piece(slab, 0, bytes);
    this.#pool.release(slab);
    return landed ? this.#readLanded(asset, from, to) : this.#readCold(asset, from, to);
  }

  /** Whether the block is open here: then it is on disk, and was read before. */
  isOpen(asset: AssetView, number: number): boolean {
    return this.#open.peek(nameOf(asset.volume, asset.id, number)) !== undefined;
  }

  /**
   * Reads the beginning of [from, to) behind the room for a head, as far as block and slab go, and returns how many bytes
   * that is: none where it might take a disk. Throws `disk_corrupt`.
   */
  readCached(asset: AssetView, from: number, to: number, slab: PooledBuffer): number {
    const number = Math.floor(from / BLOCK_BYTES);
    const block = this.#open.get(nameOf(asset.volume, asset.id, number));
    const start = from - number * BLOCK_BYTES;
    const end = Math.min(to - number * BLOCK_BYTES, BLOCK_BYTES, start + slab.room);
    if (block === undefined || !isChecked(block, start, end)) return 0;
    const got = readHere(block, slab, start, end - start);
    if (got === WOULD_BLOCK) return 0;
    if (got > 0) return got;
    this.#open.delete(nameOf(asset.volume, asset.id, number));
    throw new Fault('disk_corrupt', `block file ${block.path} became shorter while it was open`);
  }

  /** Resolves when none of these blocks is open here any more. */
  async closeBlocks(
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

  closeAll(): void {
    this.#open.clear();
  }

  async #readLanded(asset: AssetView, from: number, to: number): Promise<ByteSlice | null> {
    const block = await this.#openBlock(asset, Math.floor(from / BLOCK_BYTES), true);
    return block === null ? null : this.read(asset, from, to, false);
  }

  async #readCold(asset: AssetView, from: number, to: number): Promise<ByteSlice | null> {
    if (this.#coldReads >= COLD_READS_MAX) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#coldReads += 1;
    try {
      return await this.#readChunk(asset, from, to);
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#coldReads -= 1;
      else next();
    }
  }

  /** Reads and checks the chunk in which `from` lies, and hands out as much of it as was asked for. */
  async #readChunk(asset: AssetView, from: number, to: number): Promise<ByteSlice | null> {
    const number = Math.floor(from / BLOCK_BYTES);
    const name = nameOf(asset.volume, asset.id, number);
    const block = this.#open.get(name) ?? (await this.#openBlock(asset, number, false));
    if (block === null) return null;
    const start = from - number * BLOCK_BYTES;
    const chunk = Math.floor(start / CHUNK_BYTES);
    const chunkStart = chunk * CHUNK_BYTES;
    const chunkBytes = Math.min(CHUNK_BYTES, block.bytes - chunkStart);
    const slab = this.#pool.acquireLarge();
    block.busy += 1;
    try {
      const at = HEAD_BYTES + chunkStart;
      const { bytesRead: got } = await read(block.fd, slab.buffer, HEAD_ROOM_BYTES, chunkBytes, at);
      const payload = slab.buffer.subarray(HEAD_ROOM_BYTES, HEAD_ROOM_BYTES + got);
      checkChunk(block, chunk, payload, block.path);
      block.checked |= 1 << chunk;
    } catch (error) {
      this.#pool.release(slab);
      this.#open.delete(name);
      throw error;
    } finally {
      block.busy -= 1;
      if (block.closing) closeWhenIdle(block);
    }
    const end = Math.min(to - number * BLOCK_BYTES - chunkStart, chunkBytes);
    return this.#keep(slab, start - chunkStart, end);
  }

  /** A large buffer is for those who take their bytes; while too many do not, a little of it is copied out. */
  #keep(slab: PooledBuffer, start: number, end: number): ByteSlice {
    if (this.#pool.hasLarge && end - start > SLOW_PIECE_BYTES) return this.#piece(slab, start, end);
    const small = this.#pool.acquire(Math.min(end - start, SLOW_PIECE_BYTES));
    const bytes = Math.min(end - start, small.room);
    slab.buffer.copy(small.buffer, HEAD_ROOM_BYTES, HEAD_ROOM_BYTES + start, HEAD_ROOM_BYTES + start + bytes);
    this.#pool.release(slab);
    return this.#piece(small, 0, bytes);
  }

  #openBlock(asset: AssetView, number: number, landed: boolean): Promise<OpenBlock | null> {
    const name = nameOf(asset.volume, asset.id, number);
    const under = this.#opening.get(name);
    if (under !== undefined) return under;
    const opening = this.#openFile(asset, number, landed)
      .then((block) => {
        if (block !== null) this.#open.set(name, block);
        return block;
      })
      .finally(() => this.#opening.delete(name));
    this.#opening.set(name, opening);
    return opening;
  }

  /** Null where there is no file or it belongs to another asset. */
  async #openFile(asset: AssetView, number: number, landed: boolean): Promise<OpenBlock | null> {
    const path = blockPath(asset.directory, asset.id, number);
    let fd: number;
    try {
      fd = landed ? openSync(path, 'r') : await open(path, 'r');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw error;
    }
    const slab = this.#pool.acquire(HEAD_BYTES);
    try {
      const here = landed ? slab.memory.readNonblocking(fd, { at: 0, bytes: HEAD_BYTES }, 0) : WOULD_BLOCK;
      const bytes = here > 0 ? here : (await read(fd, slab.buffer, 0, HEAD_BYTES, 0)).bytesRead;
      const head = decodeHead(slab.buffer.subarray(0, bytes), path);
      if (head.key === asset.key && head.version === asset.version && head.number === number) {
        // What was written a moment ago comes from memory; what comes from the disk is checked whatever this says.
        const checked = landed ? ALL_CHUNKS : 0;
        return { fd, path, bytes: head.bytes, crcs: head.crcs, checked, busy: 0, closing: false, onClosed: [] };
      }
    } catch (error) {
      closeSync(fd);
      throw error;
    } finally {
      this.#pool.release(slab);
    }
    closeSync(fd);
    return null;
  }

  #piece(slab: PooledBuffer, start: number, end: number): ByteSlice {
    return {
      bytes: slab.buffer.subarray(HEAD_ROOM_BYTES + start, HEAD_ROOM_BYTES + end),
      release: () => this.#pool.release(slab),
    };
  }
}

const nameOf = (volume: number, id: number, number: number): string => `${volume}/${id}/${number}`;

/** Bytes read, fewer where the page cache has no more; `WOULD_WAIT` where it has none; 0 at the end of the file. */
function readHere(block: OpenBlock, slab: PooledBuffer, start: number, bytes: number): number {
  const got = slab.memory.readNonblocking(block.fd, { at: HEAD_ROOM_BYTES, bytes }, HEAD_BYTES + start);
  if (got !== UNSUPPORTED) return got;
  // It was read before, so it is likely to be in memory still.
  return readSync(block.fd, slab.buffer, HEAD_ROOM_BYTES, bytes, HEAD_BYTES + start);
}

function isChecked(block: OpenBlock, start: number, end: number): boolean {
  for (let chunk = Math.floor(start / CHUNK_BYTES); chunk * CHUNK_BYTES < end; chunk += 1)
    if ((block.checked & (1 << chunk)) === 0) return false;
  return true;
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
