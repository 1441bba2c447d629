// Reading stored blocks in a worker: a bounded cache of open files, and every chunk checked against its crc32 at every read. The
// kernel does not say whether bytes in the page cache are those that were checked before or came from the disk again, so an earlier
// check proves nothing. Reads are made on the spot when the page cache has the bytes; others go through the thread pool.

import { closeSync, open as openCallback, read as readCallback } from 'node:fs';
import { promisify } from 'node:util';
import { LRUCache } from 'lru-cache';
import { Fault, isFault } from '../../protocol/faults.ts';
import { entriesAtMost } from '../../runtime/lru.ts';
import { Semaphore } from '../../runtime/semaphore.ts';
import type { AssetView } from '../http/asset.ts';
import { HEAD_ROOM_BYTES, type BufferPool, type PooledBuffer } from '../io/buffer-pool.ts';
import type { ByteSlice } from '../io/byte-stream.ts';
import { LIMITS } from '../limits.ts';
import { BLOCK_BYTES, checkChunk, CHUNK_BYTES, decodeHead, HEAD_BYTES, isBlockOf } from '../store/block-file.ts';
import { blockPath } from '../store/layout.ts';
import { readOnlyWhatIsAsked } from '../io/nonblocking-io.ts';
import type { BlockName } from '../store/memory-tier.ts';
import { blockName, copyResident, nameOfBlock, type ResidentBlocks, type ResidentBytes } from './resident-blocks.ts';

/** As many blocks stay open as the page cache may be expected to hold in a quarter of memory. */
const MEMORY_SHARE = 1 / 4;
const OPEN_BLOCKS_MIN = 256;
const OPEN_BLOCKS_MAX = 65_536;
/** Descriptors that are not blocks or clients: sockets to the storekeeper and the origin, blocks being opened. */
const OTHER_DESCRIPTORS = 2_048;
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
  /** Of the asset: an id alone may have named another one before a crash. */
  readonly key: string;
  readonly version: string;
  readonly path: string;
  readonly bytes: number;
  readonly crcs: readonly number[];
  /** Reads under way. */
  reads: number;
  closing: boolean;
  onClosed: (() => void)[];
}

export class BlockReader {
  readonly #blocks: LRUCache<string, OpenBlock>;
  readonly #opening = new Map<string, Promise<OpenBlock | null>>();
  readonly #pool: BufferPool;
  /** What may touch a disk, by volume. Others wait without a buffer. */
  readonly #diskCalls = new Map<number, Semaphore>();
  readonly #resident: ResidentBlocks;

  constructor(pool: BufferPool, openBlocksMax: number, resident: ResidentBlocks) {
    this.#pool = pool;
    this.#resident = resident;
    this.#blocks = new LRUCache({ ...entriesAtMost(openBlocksMax), dispose: (block) => closeWhenUnread(block) });
  }

  /** Whether the block is on disk, as far as can be told without reading it. */
  async has(asset: AssetView, number: number): Promise<boolean> {
    if (this.isAtHand(asset, number)) return true;
    const opening = this.#diskCallsOf(asset).run(() => this.#openBlock(asset, number));
    return (await opening.catch(() => null)) !== null;
  }

  /**
   * The first bytes of [from, to), or null when their block is not on disk. Throws `disk_corrupt` or an error of the file system: the
   * storekeeper is to be asked for the bytes then.
   */
  read(asset: AssetView, from: number, to: number): ByteSlice | null | Promise<ByteSlice | null> {
    const pooled = this.#pool.acquire(chunksBytes(from, to));
    let bytes: number;
    try {
      bytes = this.readCached(asset, from, to, pooled);
    } catch (error) {
      this.#pool.release(pooled);
      throw error;
    }
    if (bytes > 0) return this.#sliceOf(pooled, bytes);
    this.#pool.release(pooled);
    return this.#diskCallsOf(asset).run(() => this.#readFromDisk(asset, from, to));
  }

  /** How large a buffer `readCached` could fill with the chunks of [from, to). */
  bufferBytes(from: number, to: number): number {
    return chunksBytes(from, to);
  }

  /** The beginning of [from, to) in the memory tier, as far as block and `bytesMax` go; null if it is not there. */
  findResident(asset: AssetView, from: number, to: number, bytesMax: number): ResidentBytes | null {
    return this.#resident.find(asset, { from, to }, bytesMax);
  }

  /** Whether the block is in the memory tier or open here: then it was read before. */
  isAtHand(asset: AssetView, number: number): boolean {
    const name = nameOfBlock(asset, number);
    return this.#resident.has(name) || this.#blocks.peek(name) !== undefined;
  }

  /**
   * Reads and checks the chunks with the beginning of [from, to), as far as block and buffer go. The bytes asked for begin at
   * `pooled.payloadAt`; returns how many they are, 0 when the read could touch a disk. Throws `disk_corrupt`.
   */
  readCached(asset: AssetView, from: number, to: number, pooled: PooledBuffer): number {
    const resident = this.findResident(asset, from, to, pooled.room);
    if (resident !== null) {
      pooled.payloadAt = HEAD_ROOM_BYTES;
      copyResident(resident, { from: 0, to: resident.bytes }, { memory: pooled.memory, at: HEAD_ROOM_BYTES });
      return resident.bytes;
    }
    const name = nameOfBlock(asset, Math.floor(from / BLOCK_BYTES));
    const block = this.#blocks.get(name);
    if (block === undefined || !isOf(block, asset)) return 0;
    const span = chunkSpan(block, from, to, pooled.room);
    const bytesRead = pooled.memory.readNonblocking(
      block.fd,
      { at: HEAD_ROOM_BYTES, bytes: span.end - span.start },
      HEAD_BYTES + span.start,
    );
    if (bytesRead < 0) return 0;
    try {
      return checkedPayload(block, span, bytesRead, pooled);
    } catch (error) {
      this.#blocks.delete(name);
      throw error;
    }
  }

  /** Resolves when none of these blocks is open here any more. */
  async closeBlocks(blocks: readonly BlockName[]): Promise<void> {
    await Promise.all(
      blocks.map(async (named) => {
        const name = blockName(named);
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

  /** As `readCached`, in the thread pool, and opens the block if it is not open. */
  async #readFromDisk(asset: AssetView, from: number, to: number): Promise<ByteSlice | null> {
    const number = Math.floor(from / BLOCK_BYTES);
    const name = nameOfBlock(asset, number);
    const block = this.#blocks.get(name) ?? (await this.#openBlock(asset, number));
    if (block === null || !isOf(block, asset)) return null;
    const pooled = this.#pool.acquire(chunksBytes(from, to));
    const span = chunkSpan(block, from, to, pooled.room);
    block.reads += 1;
    try {
      const [bytes, position] = [span.end - span.start, HEAD_BYTES + span.start] as const;
      const { bytesRead } = await read(block.fd, pooled.buffer, HEAD_ROOM_BYTES, bytes, position);
      const payloadBytes = checkedPayload(block, span, bytesRead, pooled);
      if (payloadBytes === 0) throw tooShort(block);
      return this.#sliceOf(pooled, payloadBytes);
    } catch (error) {
      this.#pool.release(pooled);
      this.#blocks.delete(name);
      throw error;
    } finally {
      block.reads -= 1;
      if (block.closing) closeWhenUnread(block);
    }
  }

  #diskCallsOf({ volume }: AssetView): Semaphore {
    let calls = this.#diskCalls.get(volume);
    if (calls === undefined) {
      calls = new Semaphore({ permits: LIMITS.diskCallsPerVolumeMax });
      this.#diskCalls.set(volume, calls);
    }
    return calls;
  }

  #openBlock(asset: AssetView, number: number): Promise<OpenBlock | null> {
    const name = nameOfBlock(asset, number);
    const ongoing = this.#opening.get(name);
    if (ongoing !== undefined) return ongoing;
    const opening = this.#openFile(asset, number)
      .then((block) => {
        if (block !== null) this.#blocks.set(name, block);
        return block;
      })
      .finally(() => this.#opening.delete(name));
    this.#opening.set(name, opening);
    return opening;
  }

  /** Null when there is no file, or it belongs to another asset. */
  async #openFile(asset: AssetView, number: number): Promise<OpenBlock | null> {
    const path = blockPath(asset.directory, asset.id, number);
    let fd: number;
    try {
      fd = await open(path, 'r');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw error;
    }
    const pooled = this.#pool.acquire(HEAD_BYTES);
    try {
      const { bytesRead } = await read(fd, pooled.buffer, 0, HEAD_BYTES, 0);
      const head = decodeHead(pooled.buffer.subarray(0, bytesRead), path);
      if (isBlockOf(head, asset, number)) {
        readOnlyWhatIsAsked(fd);
        const { key, version, bytes, crcs } = head;
        return { fd, path, key, version, bytes, crcs, reads: 0, closing: false, onClosed: [] };
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

  #sliceOf(pooled: PooledBuffer, bytes: number): ByteSlice {
    return {
      bytes: pooled.buffer.subarray(pooled.payloadAt, pooled.payloadAt + bytes),
      release: () => this.#pool.release(pooled),
    };
  }
}

/** Whole chunks of a block. Positions are those of the payload. */
interface ChunkSpan {
  /** Where a chunk begins. */
  readonly start: number;
  /** Where a chunk or the block ends. */
  readonly end: number;
  /** What was asked for, which may end behind the span. */
  readonly from: number;
  readonly to: number;
}

/** The chunks with the beginning of bytes [from, to) of the asset that fit into `room`. */
function chunkSpan(block: OpenBlock, from: number, to: number, room: number): ChunkSpan {
  const base = from - (from % BLOCK_BYTES);
  const start = from - base - (from % CHUNK_BYTES);
  const end = Math.min(chunkEnd(to - base), start + room, block.bytes);
  return { start, end, from: from - base, to: to - base };
}

const chunkEnd = (at: number): number => Math.ceil(at / CHUNK_BYTES) * CHUNK_BYTES;

const chunksBytes = (from: number, to: number): number => chunkEnd(to) - (from - (from % CHUNK_BYTES));

/**
 * Checks the chunks of a span that lie whole in the buffer, behind the head room, and returns how many of the bytes asked for are
 * among them. Throws `disk_corrupt`.
 */
function checkedPayload(block: OpenBlock, span: ChunkSpan, bytesRead: number, pooled: PooledBuffer): number {
  const { start, end, from, to } = span;
  if (bytesRead === 0) throw tooShort(block);
  const checkedEnd = start + bytesRead === end ? end : start + bytesRead - (bytesRead % CHUNK_BYTES);
  for (let at = start; at < checkedEnd; at += CHUNK_BYTES) {
    const bufferAt = HEAD_ROOM_BYTES + at - start;
    const chunk = pooled.buffer.subarray(bufferAt, bufferAt + Math.min(CHUNK_BYTES, checkedEnd - at));
    checkChunk(block.crcs, at / CHUNK_BYTES, chunk, block.path);
  }
  pooled.payloadAt = HEAD_ROOM_BYTES + from - start;
  return Math.max(0, Math.min(to, checkedEnd) - from);
}

const isOf = (block: OpenBlock, asset: AssetView): boolean =>
  block.key === asset.key && block.version === asset.version;

const tooShort = ({ path }: OpenBlock): Fault => new Fault('disk_corrupt', `block file ${path} is too short`);

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
