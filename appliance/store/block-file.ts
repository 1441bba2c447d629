// One block of one asset version as a file that describes itself: a 4 KiB head (magic, JSON, its crc32), then the payload.
// The index can be lost and made again from these files alone. A name appears only by rename, so a file is whole or absent;
// each 256 KiB of payload has a crc32, checked when it is first read.

import * as fs from 'node:fs';
import { constants, closeSync, openSync, readSync } from 'node:fs';
import { open, rename, unlink, type FileHandle } from 'node:fs/promises';
import { promisify } from 'node:util';
import { crc32 } from 'node:zlib';
import { Fault } from '../../protocol/faults.ts';

/** By number: a handle object for each block written costs more than the calls. */
const openForWriting = promisify(fs.open);
const [write, writev] = [promisify(fs.write), promisify(fs.writev)];
/** A new file; what is written is on disk when the call returns, which saves a call. */
const { O_WRONLY, O_CREAT, O_TRUNC, O_DSYNC } = constants;
const TO_DISK = O_WRONLY | O_CREAT | O_TRUNC | O_DSYNC;

export const BLOCK_BYTES = 2 ** 20;
export const CHUNK_BYTES = 2 ** 18;
export const HEAD_BYTES = 4096;
/** Of the JSON; what remains of the page after magic, length and crc. */
const JSON_BYTES_MAX = HEAD_BYTES - 16;
/** Sizes, number, birth and a crc32 for each chunk, with their names. */
const NUMBERS_BYTES_MAX = 400;
const MAGIC = 'LARDRB01';

export interface BlockHead {
  readonly key: string;
  readonly version: string;
  readonly assetBytes: number;
  readonly number: number;
  readonly bytes: number;
  readonly crcs: readonly number[];
  readonly headers: Readonly<Record<string, string>>;
  /** When the block was written; the index may know better. */
  readonly generatedAtMs: number | null;
  readonly holding: string | null;
}

/** What a block file takes on disk: whole 4 KiB pages. */
export const diskBytesOf = (payloadBytes: number): number => HEAD_BYTES + Math.ceil(payloadBytes / 4096) * 4096;

/** What a whole asset takes on disk. */
export const assetDiskBytes = (assetBytes: number): number =>
  diskBytesOf(assetBytes) + Math.max(0, blockCount(assetBytes) - 1) * HEAD_BYTES;

export const blockCount = (assetBytes: number): number => Math.ceil(assetBytes / BLOCK_BYTES);

/** Payload bytes of block `number`. */
export const blockBytes = (assetBytes: number, number: number): number =>
  Math.min(BLOCK_BYTES, assetBytes - number * BLOCK_BYTES);

export function chunkCrcs(payload: Buffer): number[] {
  const crcs: number[] = [];
  for (let at = 0; at < payload.length; at += CHUNK_BYTES) crcs.push(crc32(payload.subarray(at, at + CHUNK_BYTES)));
  return crcs;
}

/** Whether what an asset version is known by fits into the heads of its blocks, whatever their numbers and checksums. */
export const fitsHead = (meta: Pick<BlockHead, 'key' | 'version' | 'headers' | 'holding'>): boolean => {
  const { key, version, headers, holding } = meta;
  return Buffer.byteLength(JSON.stringify({ key, version, headers, holding })) <= JSON_BYTES_MAX - NUMBERS_BYTES_MAX;
};

/** The JSON in a block file. `bornMs` is what layout 1 calls `generatedAtMs`. */
type StoredHead = Omit<BlockHead, 'generatedAtMs'> & { readonly bornMs: number | null };

export function encodeHead(head: BlockHead): Buffer {
  const { generatedAtMs, ...rest } = head;
  const json = Buffer.from(JSON.stringify({ ...rest, bornMs: generatedAtMs } satisfies StoredHead), 'utf8');
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
  if (!isStoredHead(head)) throw corrupt(path, 'has a head of another shape');
  const { bornMs, ...rest } = head;
  return { ...rest, generatedAtMs: bornMs };
}

/** By hand, for it is looked at whenever a worker opens a block; what its checksum covers was written by us. */
function isStoredHead(value: unknown): value is StoredHead {
  const head = value as Record<keyof StoredHead, unknown> | null;
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
    (head.bornMs === null || typeof head.bornMs === 'number') &&
    (head.holding === null || typeof head.holding === 'string')
  );
}

/** Temporary name, data to disk, rename. The caller has written an intent, and closes the descriptor that it gets. */
export async function writeBlock(path: string, head: BlockHead, payload: Buffer): Promise<number> {
  const temporary = `${path}.tmp`;
  let fd: number | null = null;
  try {
    fd = await openForWriting(temporary, TO_DISK, 0o600);
    await writeAll(fd, encodeHead(head), payload);
    await rename(temporary, path);
    return fd;
  } catch (error) {
    if (fd !== null) closeSync(fd);
    await unlink(temporary).catch(() => undefined);
    throw error;
  }
}

/** Reads a whole block and checks every crc. Null where there is no file; throws `disk_corrupt`. */
export async function readBlock(path: string): Promise<{ readonly head: BlockHead; readonly payload: Buffer } | null> {
  const file = await openForReading(path);
  if (file === null) return null;
  try {
    const { size } = await file.stat();
    const data = Buffer.allocUnsafe(Math.min(size, HEAD_BYTES + BLOCK_BYTES));
    const { bytesRead } = await file.read(data, 0, data.length, 0);
    const head = decodeHead(data.subarray(0, Math.min(bytesRead, HEAD_BYTES)), path);
    const payload = data.subarray(HEAD_BYTES, bytesRead);
    if (payload.length !== head.bytes) throw corrupt(path, `holds ${payload.length} of ${head.bytes} bytes`);
    if (chunkCrcs(payload).some((crc, at) => crc !== head.crcs[at])) throw corrupt(path, 'fails its checksum');
    return { head, payload };
  } finally {
    await file.close();
  }
}

/** Only the head. Null where there is no file; throws `disk_corrupt`. */
export function readHead(path: string): BlockHead | null {
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

/** Throws `disk_corrupt` where chunk `at` of the block is not what was written. */
export function checkChunk(head: { readonly crcs: readonly number[] }, at: number, chunk: Buffer, path: string): void {
  if (crc32(chunk) !== head.crcs[at]) throw corrupt(path, `fails its checksum at ${at * CHUNK_BYTES}`);
}

async function openForReading(path: string): Promise<FileHandle | null> {
  try {
    return await open(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

async function writeAll(fd: number, head: Buffer, payload: Buffer): Promise<void> {
  let at = (await writev(fd, [head, payload], 0)).bytesWritten;
  while (at < HEAD_BYTES) at += (await write(fd, head, at, HEAD_BYTES - at, at)).bytesWritten;
  for (const end = HEAD_BYTES + payload.length; at < end;)
    at += (await write(fd, payload, at - HEAD_BYTES, end - at, at)).bytesWritten;
}

const corrupt = (path: string, why: string): Fault => new Fault('disk_corrupt', `block file ${path} ${why}`);
