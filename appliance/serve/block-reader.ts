// Reading stored blocks in a worker: a bounded cache of open files, each chunk checked against its crc32 when it is first read through
// an open file. A first read may touch the disk and goes through the thread pool. Later reads, and reads of a block that has just been
// written, are made on the spot when the page cache has the bytes, which is cheaper than the trip.

import { closeSync, open as openCallback, openSync, read as readCallback, readSync } from 'node:fs';
import { promisify } from 'node:util';
import { LRUCache } from 'lru-cache';
import { Fault, isFault } from '../../protocol/faults.ts';
import { Semaphore } from '../../runtime/semaphore.ts';
import type { AssetView } from '../http/asset.ts';
import { HEAD_ROOM_BYTES, type BufferPool, type PooledBuffer } from '../io/buffer-pool.ts';
import type { ByteSlice } from '../io/byte-stream.ts';
import { LIMITS } from '../limits.ts';
import { BLOCK_BYTES, checkChunk, CHUNK_BYTES, decodeHead, HEAD_BYTES } from '../store/block-file.ts';
import { blockPath } from '../store/layout.ts';
import { UNSUPPORTED, WOULD_BLOCK } from '../io/nonblocking-io.ts';

/** As many blocks stay open as the page cache may be expected to hold in a quarter of memory. */
const MEMORY_SHARE = 1 / 4;
const OPEN_BLOCKS_MIN = 256;
const OPEN_BLOCKS_MAX = 65_536;
/** Descriptors that are not blocks or clients: sockets to the storekeeper and the origin, blocks being opened. */
const OTHER_DESCRIPTORS = 2_048;
/** Cold reads at the same time, each with a large buffer; others wait without one. Some threads are left for opening files. */
const COLD_READS_MAX = (LIMITS.diskThreads * 3) / 4;

const ALL_CHUNKS = 2 ** (BLOCK_BYTES / CHUNK_BYTES) - 1;

const open = promisify(openCallback);
const read = promisify(readCallback);

/** How many blocks a worker may keep open. */
export function openBlocksMax(spec: {
  readonly memoryBytes: number;
  readonly filesMax: number;
  readonly connectionsMax: number;
}): number {
  const byMemory = (spec.memoryBytes * MEMORY_SHARE) / BLOCK_BYTES;
  const byFiles = spec.filesMax - spec.connectionsMax - OTHER_DESCRIPTORS;
  return Math.floor(Math.min(OPEN_BLOCKS_MAX, Math.max(OPEN_BLOCKS_MIN, Math.min(byMemory, byFiles))));
}

interface OpenBlock {
  readonly fd: number;
  readonly path: string;
  readonly bytes: number;
  readonly crcs: readonly number[];
  /** One bit per chunk that has been read and checked. */
  checked: number;
  /** Reads under way. */
  reads: number;
  closing: boolean;
  onClosed: (() => void)[];
}

export class BlockReader {
  readonly #blocks: LRUCache<string, OpenBlock>;
  readonly #opening = new Map<string, Promise<OpenBlock | null>>();
  readonly #pool: BufferPool;
  readonly #coldReads = new Semaphore({ permits: COLD_READS_MAX });

  constructor(pool: BufferPool, openBlocksMax: number) {
    this.#pool = pool;
    this.#blocks = new LRUCache({ max: openBlocksMax, dispose: (block) => closeWhenUnread(block) });
  }

  /** Whether the block is on disk, as far as can be told without reading it. */
  async has(asset: AssetView, number: number): Promise<boolean> {
    const block =
      this.#blocks.get(nameOf(asset.volume, asset.id, number)) ??
      (await this.#openBlock(asset, number, false).catch(() => null));
    return block !== null;
  }

  /**
   * The first bytes of [from, to), or null when their block is not on disk. `justWritten`: the block was written a moment ago. Throws
   * `disk_corrupt` or an error of the file system: the storekeeper is to be asked for the bytes then.
   */
  read(asset: AssetView, from: number, to: number, justWritten: boolean): ByteSlice | null | Promise<ByteSlice | null> {
    const pooled = this.#pool.acquire(to - from);
    let bytes: number;
    try {
      bytes = this.readCached(asset, from, to, pooled);
    } catch (error) {
      this.#pool.release(pooled);
      throw error;
    }
    if (bytes > 0) return this.#sliceOf(pooled, 0, bytes);
    this.#pool.release(pooled);
    if (justWritten) return this.#readJustWritten(asset, from, to);
    return this.#coldReads.run(() => this.#readChunk(asset, from, to));
  }

  /** Whether the block is open here: then it is on disk, and was read before. */
  isOpen(asset: AssetView, number: number): boolean {
    return this.#blocks.peek(nameOf(asset.volume, asset.id, number)) !== undefined;
  }

  /**
   * Reads the beginning of [from, to) behind the head room of the buffer, as far as block and buffer go, and returns how many bytes
   * that is; 0 when the read could touch a disk. Throws `disk_corrupt`.
   */
  readCached(asset: AssetView, from: number, to: number, pooled: PooledBuffer): number {
    const number = Math.floor(from / BLOCK_BYTES);
    const name = nameOf(asset.volume, asset.id, number);
    const block = this.#blocks.get(name);
    const start = from - number * BLOCK_BYTES;
    const end = Math.min(to - number * BLOCK_BYTES, BLOCK_BYTES, start + pooled.room);
    if (block === undefined || !isChecked(block, start, end)) return 0;
    const bytes = readNow(block, pooled, start, end - start);
    if (bytes === WOULD_BLOCK) return 0;
    if (bytes > 0) return bytes;
    this.#blocks.delete(name);
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
        const block = this.#blocks.peek(name);
        if (block === undefined) return;
        const closed = new Promise<void>((resolve) => block.onClosed.push(resolve));
        this.#blocks.delete(name);
        await closed;
      }),
    );
  }

  closeAll(): void {
    this.#blocks.clear();
  }

  async #readJustWritten(asset: AssetView, from: number, to: number): Promise<ByteSlice | null> {
    const block = await this.#openBlock(asset, Math.floor(from / BLOCK_BYTES), true);
    return block === null ? null : this.read(asset, from, to, false);
  }

  /** Reads and checks the chunk that contains `from`, and returns as much of it as was asked for. */
  async #readChunk(asset: AssetView, from: number, to: number): Promise<ByteSlice | null> {
    const number = Math.floor(from / BLOCK_BYTES);
    const name = nameOf(asset.volume, asset.id, number);
    const block = this.#blocks.get(name) ?? (await this.#openBlock(asset, number, false));
    if (block === null) return null;
    const start = from - number * BLOCK_BYTES;
    const chunk = Math.floor(start / CHUNK_BYTES);
    const chunkStart = chunk * CHUNK_BYTES;
    const chunkBytes = Math.min(CHUNK_BYTES, block.bytes - chunkStart);
    const pooled = this.#pool.acquireLarge();
    block.reads += 1;
    try {
      const position = HEAD_BYTES + chunkStart;
      const { bytesRead } = await read(block.fd, pooled.buffer, HEAD_ROOM_BYTES, chunkBytes, position);
      const payload = pooled.buffer.subarray(HEAD_ROOM_BYTES, HEAD_ROOM_BYTES + bytesRead);
      checkChunk(block, chunk, payload, block.path);
      block.checked |= 1 << chunk;
    } catch (error) {
      this.#pool.release(pooled);
      this.#blocks.delete(name);
      throw error;
    } finally {
      block.reads -= 1;
      if (block.closing) closeWhenUnread(block);
    }
    const end = Math.min(to - number * BLOCK_BYTES - chunkStart, chunkBytes);
    return this.#sliceOrCopy(pooled, start - chunkStart, end);
  }

  /** Large buffers are for clients that take their bytes. While too many do not, a part is copied into a smaller buffer. */
  #sliceOrCopy(large: PooledBuffer, start: number, end: number): ByteSlice {
    if (this.#pool.hasLarge && end - start > LIMITS.mediumBufferBytes) return this.#sliceOf(large, start, end);
    const smaller = this.#pool.acquire(Math.min(end - start, LIMITS.mediumBufferBytes));
    const bytes = Math.min(end - start, smaller.room);
    const from = HEAD_ROOM_BYTES + start;
    large.buffer.copy(smaller.buffer, HEAD_ROOM_BYTES, from, from + bytes);
    this.#pool.release(large);
    return this.#sliceOf(smaller, 0, bytes);
  }

  #openBlock(asset: AssetView, number: number, justWritten: boolean): Promise<OpenBlock | null> {
    const name = nameOf(asset.volume, asset.id, number);
    const ongoing = this.#opening.get(name);
    if (ongoing !== undefined) return ongoing;
    const opening = this.#openFile(asset, number, justWritten)
      .then((block) => {
        if (block !== null) this.#blocks.set(name, block);
        return block;
      })
      .finally(() => this.#opening.delete(name));
    this.#opening.set(name, opening);
    return opening;
  }

  /** Null when there is no file, or it belongs to another asset. */
  async #openFile(asset: AssetView, number: number, justWritten: boolean): Promise<OpenBlock | null> {
    const path = blockPath(asset.directory, asset.id, number);
    let fd: number;
    try {
      fd = justWritten ? openSync(path, 'r') : await open(path, 'r');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw error;
    }
    const pooled = this.#pool.acquire(HEAD_BYTES);
    try {
      const inMemory = justWritten ? pooled.memory.readNonblocking(fd, { at: 0, bytes: HEAD_BYTES }, 0) : WOULD_BLOCK;
      const bytes = inMemory > 0 ? inMemory : (await read(fd, pooled.buffer, 0, HEAD_BYTES, 0)).bytesRead;
      const head = decodeHead(pooled.buffer.subarray(0, bytes), path);
      if (head.key === asset.key && head.version === asset.version && head.number === number) {
        // What was written a moment ago comes from memory. A read that touches the disk is checked whatever this says.
        const checked = justWritten ? ALL_CHUNKS : 0;
        return { fd, path, bytes: head.bytes, crcs: head.crcs, checked, reads: 0, closing: false, onClosed: [] };
      }
    } catch (error) {
      closeSync(fd);
      throw error;
    } finally {
      this.#pool.release(pooled);
    }
    closeSync(fd);
    return null;
  }

  #sliceOf(pooled: PooledBuffer, start: number, end: number): ByteSlice {
    return {
      bytes: pooled.buffer.subarray(HEAD_ROOM_BYTES + start, HEAD_ROOM_BYTES + end),
      release: () => this.#pool.release(pooled),
    };
  }
}

const nameOf = (volume: number, id: number, number: number): string => `${volume}/${id}/${number}`;

/** Bytes read, fewer when the page cache has no more; `WOULD_BLOCK` when it has none; 0 at the end of the file. */
function readNow(block: OpenBlock, pooled: PooledBuffer, start: number, bytes: number): number {
  const got = pooled.memory.readNonblocking(block.fd, { at: HEAD_ROOM_BYTES, bytes }, HEAD_BYTES + start);
  if (got !== UNSUPPORTED) return got;
  // It was read before, so it is likely to be still in memory.
  return readSync(block.fd, pooled.buffer, HEAD_ROOM_BYTES, bytes, HEAD_BYTES + start);
}

function isChecked(block: OpenBlock, start: number, end: number): boolean {
  for (let chunk = Math.floor(start / CHUNK_BYTES); chunk * CHUNK_BYTES < end; chunk += 1)
    if ((block.checked & (1 << chunk)) === 0) return false;
  return true;
}

function closeWhenUnread(block: OpenBlock): void {
  block.closing = true;
  if (block.reads > 0) return;
  closeSync(block.fd);
  for (const resolve of block.onClosed) resolve();
  block.onClosed = [];
}

/** A failure of the disk that the storekeeper can mend by fetching the block again. */
export function isDiskFault(error: unknown): boolean {
  return isFault(error) ? error.code === 'disk_corrupt' : typeof (error as NodeJS.ErrnoException).code === 'string';
}
