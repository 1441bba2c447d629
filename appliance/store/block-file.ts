// One block of one asset version as a self-describing file: a 4 KiB head (magic, JSON, crc32 of the JSON), then the payload.
// A lost index is rebuilt from these files alone. A file gets its name by rename, so it is complete or absent. Each 64 KiB chunk
// of the payload has a crc32 in the head, and whoever reads a chunk checks it, every time: the page cache may return what a disk
// has spoiled since the last check.

import * as fs from 'node:fs';
import { constants, closeSync, openSync, readSync } from 'node:fs';
import { open, rename, unlink, type FileHandle } from 'node:fs/promises';
import { promisify } from 'node:util';
import { crc32 } from '../../runtime/crc32.ts';
import { Fault } from '../../protocol/faults.ts';

/** Plain descriptors, because a `FileHandle` per written block costs more than the calls themselves. */
const openForWriting = promisify(fs.open);
const [write, writev, ftruncate] = [promisify(fs.write), promisify(fs.writev), promisify(fs.ftruncate)];
const close = promisify(fs.close);
/** O_DSYNC: data is on disk when the write returns, which saves a call of fdatasync. */
const { O_WRONLY, O_CREAT, O_TRUNC, O_DSYNC, O_DIRECT } = constants;
const WRITE_FLAGS = O_WRONLY | O_CREAT | O_TRUNC | O_DSYNC;

export const BLOCK_BYTES = 2 ** 20;
/** The unit of a checksum, and so of every read. */
export const CHUNK_BYTES = 2 ** 16;
export const HEAD_BYTES = 4096;
const PAGE_BYTES = 4096;
/** What remains of the head for JSON after magic, length and crc32. */
const JSON_BYTES_MAX = HEAD_BYTES - 16;
/** Bound on the JSON fields that hold numbers: sizes, block number, `generatedAtMs` and a crc32 per chunk. */
const NUMBERS_BYTES_MAX = 400;
const MAGIC = 'LARDRB02';

export interface BlockHead {
  readonly key: string;
  readonly version: string;
  readonly assetBytes: number;
  readonly number: number;
  readonly bytes: number;
  readonly crcs: readonly number[];
  readonly headers: Readonly<Record<string, string>>;
  /** As of when the block was written; the index has the current value. */
  readonly generatedAtMs: number | null;
  readonly holding: string | null;
}

/** Bytes that a block file takes on disk, in whole 4 KiB pages. */
export const diskBytesOf = (payloadBytes: number): number => HEAD_BYTES + Math.ceil(payloadBytes / 4096) * 4096;

/** Bytes that all block files of an asset take on disk. */
export const assetDiskBytes = (assetBytes: number): number =>
  diskBytesOf(assetBytes) + Math.max(0, blockCount(assetBytes) - 1) * HEAD_BYTES;

export const blockCount = (assetBytes: number): number => Math.ceil(assetBytes / BLOCK_BYTES);

/** Payload bytes of block `number`. */
export const blockBytes = (assetBytes: number, number: number): number =>
  Math.min(BLOCK_BYTES, assetBytes - number * BLOCK_BYTES);

/** The bytes of a block, in chunks, with the checksum of each. */
export interface BlockPayload {
  readonly bytes: number;
  readonly chunks: readonly Buffer[];
  readonly crcs: readonly number[];
  /** Every chunk begins at a page, and what follows the last one to the end of its page may be overwritten. */
  readonly inPages: boolean;
}

export function payloadOf(bytes: Buffer): BlockPayload {
  const chunks: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) chunks.push(bytes.subarray(at, at + CHUNK_BYTES));
  return { bytes: bytes.length, chunks, crcs: chunks.map((chunk) => crc32(chunk)), inPages: false };
}

/** Whether the metadata of an asset version fits into the heads of all its blocks. */
export const fitsHead = (meta: Pick<BlockHead, 'key' | 'version' | 'headers' | 'holding'>): boolean => {
  const { key, version, headers, holding } = meta;
  return Buffer.byteLength(JSON.stringify({ key, version, headers, holding })) <= JSON_BYTES_MAX - NUMBERS_BYTES_MAX;
};

export function encodeHead(head: BlockHead): Buffer {
  const json = Buffer.from(JSON.stringify(head), 'utf8');
  if (json.length > JSON_BYTES_MAX)
    throw new Fault(
      'internal',
      `the head of ${head.key.slice(0, 100)} takes ${json.length} bytes, more than ${JSON_BYTES_MAX}`,
    );
  const page = Buffer.alloc(HEAD_BYTES);
  page.write(MAGIC, 0, 'latin1');
  page.writeUInt32LE(json.length, 8);
  page.writeUInt32LE(crc32(json), 12);
  json.copy(page, 16);
  return page;
}

/** Throws `disk_corrupt`. */
export function decodeHead(page: Buffer, path: string): BlockHead {
  const jsonBytes = page.length < HEAD_BYTES ? -1 : page.readUInt32LE(8);
  if (jsonBytes < 0 || page.toString('latin1', 0, 8) !== MAGIC || jsonBytes > JSON_BYTES_MAX)
    throw corrupt(path, 'has no block head');
  const json = page.subarray(16, 16 + jsonBytes);
  if (crc32(json) !== page.readUInt32LE(12)) throw corrupt(path, 'has a damaged head');
  const head = JSON.parse(json.toString('utf8')) as unknown;
  if (!isBlockHead(head)) throw corrupt(path, 'has a head of another shape');
  return head;
}

/**
 * Hand-written rather than a schema, because workers parse a head for every block they open. A crc32 already covers it. Fields of
 * a newer release are ignored.
 */
function isBlockHead(value: unknown): value is BlockHead {
  const head = value as Record<keyof BlockHead, unknown> | null;
  const isCount = (count: unknown): boolean => Number.isSafeInteger(count) && (count as number) >= 0;
  return (
    typeof head === 'object' &&
    head !== null &&
    typeof head.key === 'string' &&
    typeof head.version === 'string' &&
    [head.assetBytes, head.number, head.bytes].every(isCount) &&
    Array.isArray(head.crcs) &&
    head.crcs.every((crc) => Number.isSafeInteger(crc)) &&
    typeof head.headers === 'object' &&
    head.headers !== null &&
    Object.values(head.headers).every((field) => typeof field === 'string') &&
    (head.generatedAtMs === null || typeof head.generatedAtMs === 'number') &&
    (head.holding === null || typeof head.holding === 'string')
  );
}

/**
 * Writes to a temporary name, then renames. The caller must have persisted an intent before. With a page for the head a payload in
 * pages bypasses the page cache; throws EINVAL where the file system cannot do that.
 */
export async function writeBlock(
  path: string,
  head: BlockHead,
  payload: BlockPayload,
  headPage: Buffer | null = null,
): Promise<void> {
  const temporary = `${path}.tmp`;
  let fd: number | null = null;
  try {
    if (headPage === null) {
      fd = await openForWriting(temporary, WRITE_FLAGS, 0o600);
      await writeAll(fd, [encodeHead(head), ...payload.chunks]);
    } else {
      fd = await openForWriting(temporary, WRITE_FLAGS | O_DIRECT, 0o600);
      encodeHead(head).copy(headPage);
      await writeAll(fd, [headPage, ...wholePages(payload.chunks)]);
      if (payload.bytes % PAGE_BYTES !== 0) await ftruncate(fd, HEAD_BYTES + payload.bytes);
    }
    await rename(temporary, path);
  } catch (error) {
    await unlink(temporary).catch(() => undefined);
    throw error;
  } finally {
    if (fd !== null) await close(fd);
  }
}

/** Reads a block and verifies all its checksums. Null where there is no file; throws `disk_corrupt`. */
export async function readBlock(path: string): Promise<{ readonly head: BlockHead; readonly payload: Buffer } | null> {
  const file = await openForReading(path);
  if (file === null) return null;
  try {
    const { size } = await file.stat();
    const data = Buffer.allocUnsafe(Math.min(size, HEAD_BYTES + BLOCK_BYTES));
    const { bytesRead } = await file.read(data, 0, data.length, 0);
    return decodeBlock(data.subarray(0, bytesRead), path);
  } finally {
    await file.close();
  }
}

/** Reads the head alone. Null where there is no file; throws `disk_corrupt`. */
export async function readHead(path: string): Promise<BlockHead | null> {
  const file = await openForReading(path);
  if (file === null) return null;
  try {
    const page = Buffer.allocUnsafe(HEAD_BYTES);
    const { bytesRead } = await file.read(page, 0, HEAD_BYTES, 0);
    return decodeHead(page.subarray(0, bytesRead), path);
  } finally {
    await file.close();
  }
}

/** As `readHead`, for a start that rebuilds an index and has nothing else to do. */
export function readHeadSync(path: string): BlockHead | null {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
  try {
    const page = Buffer.allocUnsafe(HEAD_BYTES);
    return decodeHead(page.subarray(0, readSync(fd, page, 0, HEAD_BYTES, 0)), path);
  } finally {
    closeSync(fd);
  }
}

/** Whether a block file with this head is block `number` of the asset version. */
export const isBlockOf = (
  head: BlockHead,
  asset: { readonly key: string; readonly version: string; readonly bytes: number },
  number: number,
): boolean =>
  head.key === asset.key &&
  head.version === asset.version &&
  head.assetBytes === asset.bytes &&
  head.number === number &&
  head.bytes === blockBytes(asset.bytes, number);

/** Whether the bytes of a file are block `number` of the asset version, with every checksum right. */
export function isIntactBlock(file: Buffer, asset: Parameters<typeof isBlockOf>[1], number: number): boolean {
  try {
    const { head } = decodeBlock(file, '');
    return isBlockOf(head, asset, number);
  } catch {
    return false;
  }
}

/** Throws `disk_corrupt` if the head, the length or a checksum is not right. */
function decodeBlock(file: Buffer, path: string): { readonly head: BlockHead; readonly payload: Buffer } {
  const head = decodeHead(file.subarray(0, HEAD_BYTES), path);
  const payload = file.subarray(HEAD_BYTES);
  if (payload.length !== head.bytes) throw corrupt(path, `holds ${payload.length} of ${head.bytes} bytes`);
  if (payloadOf(payload).crcs.some((crc, at) => crc !== head.crcs[at])) throw corrupt(path, 'fails its checksum');
  return { head, payload };
}

export async function unlinkIfPresent(path: string): Promise<void> {
  await unlink(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
  });
}

/** Throws `disk_corrupt` if chunk `at` of the block fails its checksum. */
export function checkChunk(crcs: readonly number[], at: number, chunk: Uint8Array, path: string): void {
  if (crc32(chunk) !== crcs[at]) throw corrupt(path, `fails its checksum at ${at * CHUNK_BYTES}`);
}

async function openForReading(path: string): Promise<FileHandle | null> {
  try {
    return await open(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

/** The chunks of a payload in pages, the last one filled up to the end of its page. */
function wholePages(chunks: readonly Buffer[]): Buffer[] {
  const last = chunks.at(-1)!;
  const pages = Buffer.from(last.buffer, last.byteOffset, Math.ceil(last.length / PAGE_BYTES) * PAGE_BYTES);
  pages.fill(0, last.length);
  return [...chunks.slice(0, -1), pages];
}

async function writeAll(fd: number, buffers: readonly Buffer[]): Promise<void> {
  let at = (await writev(fd, buffers, 0)).bytesWritten;
  // What one call did not take is written buffer by buffer.
  let start = 0;
  for (const buffer of buffers) {
    for (const end = start + buffer.length; at < end;)
      at += (await write(fd, buffer, at - start, end - at, at)).bytesWritten;
    start += buffer.length;
  }
}

const corrupt = (path: string, why: string): Fault => new Fault('disk_corrupt', `block file ${path} ${why}`);
