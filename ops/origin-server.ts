// A plain HTTP origin for the demo and for tests. It serves the files below one directory by GET and HEAD with single ranges,
// validators and CORS. `GET /-/stats` returns how many requests it received and how many bytes it sent (`?paths=1` by path), so
// that the offload of an appliance can be measured.

import { createHash } from 'node:crypto';
import { open, realpath, type FileHandle } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { extname, join, sep } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { LRUCache } from 'lru-cache';
import { selectResponse, type OriginResponse, type FileMetadata } from './origin-response.ts';

const CONNECTIONS_MAX = 4_096;
const STATS_PATHS_MAX = 50_000;
const ETAGS_MAX = 50_000;
/** Larger files are tagged by identity, not by content: hashing 10 GB would delay the first response by seconds. */
const HASHED_BYTES_MAX = 64 * 2 ** 20;
const READ_BYTES = 256 * 2 ** 10;
const KEEP_ALIVE_MS = 60_000;

const CONTENT_TYPES: Readonly<Record<string, string>> = {
  '.m3u8': 'application/vnd.apple.mpegurl',
  '.mpd': 'application/dash+xml',
  '.m4s': 'video/mp4',
  '.mp4': 'video/mp4',
  '.m4a': 'audio/mp4',
  '.ts': 'video/mp2t',
  '.vtt': 'text/vtt',
  '.json': 'application/json',
  '.txt': 'text/plain; charset=utf-8',
  '.jpg': 'image/jpeg',
  '.png': 'image/png',
};

const CORS = {
  'access-control-allow-origin': '*',
  'access-control-expose-headers': 'Accept-Ranges, Content-Range, ETag, Last-Modified',
  'timing-allow-origin': '*',
} as const;

export interface OriginStats {
  readonly requests: number;
  readonly bytes: number;
  readonly byPath?: Readonly<Record<string, { readonly requests: number; readonly bytes: number }>>;
}

interface OriginState {
  /** Absolute path without symbolic links. Every file that is served must resolve to a path below it. */
  readonly root: string;
  /** Entity tags by the identity of the file. */
  readonly etags: LRUCache<string, string>;
  readonly stats: { requests: number; bytes: number; readonly byPath: Map<string, PathStats> };
}

interface PathStats {
  requests: number;
  bytes: number;
}

/** Throws if `root` cannot be read as a directory. */
export async function createOrigin(root: string): Promise<Server> {
  const state: OriginState = {
    root: await realpath(root),
    etags: new LRUCache({ max: ETAGS_MAX }),
    stats: { requests: 0, bytes: 0, byPath: new Map() },
  };
  const server = createServer({ connectionsCheckingInterval: 1_000 }, (request, response) => {
    respond(state, request, response).catch((error: unknown) => {
      // This includes a client that disconnects in mid-file, which needs no response.
      if (response.headersSent || response.destroyed) response.destroy();
      else respondWithError(response, 500, `the origin could not read the file: ${(error as Error).message}`);
    });
  });
  server.headersTimeout = 10_000;
  server.keepAliveTimeout = KEEP_ALIVE_MS;
  server.maxConnections = CONNECTIONS_MAX;
  return server;
}

async function respond(state: OriginState, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const target = parseTarget(request.url ?? '/');
  if (target === null) return respondWithError(response, 400, 'the path is malformed or leaves the root');
  if (target.path === '/-/stats') return respondWithStats(state, target.query, response);
  const path = target.path;
  const pathStats = statsFor(state, path);
  state.stats.requests += 1;
  pathStats.requests += 1;
  if (request.method === 'OPTIONS') {
    response.writeHead(204, {
      ...CORS,
      'access-control-allow-methods': 'GET, HEAD, OPTIONS',
      'access-control-allow-headers': 'Range, If-Match, If-None-Match, If-Range',
      'access-control-max-age': '86400',
    });
    response.end();
    return;
  }
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('allow', 'GET, HEAD, OPTIONS');
    return respondWithError(response, 405, `${request.method} is not served here`);
  }
  const file = await openFile(state.root, path);
  if (file === null) return respondWithError(response, 404, `${path.slice(0, 200)} is no file of this origin`);
  try {
    const metadata = await readMetadata(state, file, path);
    const chosen = selectResponse(metadata, { method: request.method, ...readConditions(request) });
    response.writeHead(chosen.status, headersFor(chosen, metadata, path));
    if (request.method === 'HEAD' || (chosen.status !== 200 && chosen.status !== 206) || metadata.bytes === 0) {
      response.end();
      return;
    }
    const first = chosen.status === 206 ? chosen.first : 0;
    const last = chosen.status === 206 ? chosen.last : metadata.bytes - 1;
    const stream = file.createReadStream({ start: first, end: last, highWaterMark: READ_BYTES, autoClose: false });
    try {
      await pipeline(stream, response);
    } finally {
      state.stats.bytes += stream.bytesRead;
      pathStats.bytes += stream.bytesRead;
    }
  } finally {
    await file.close();
  }
}

/** Decoded path and raw query; null if the path is malformed or leaves the root. Accepts absolute-form (RFC 9112 3.2.2). */
function parseTarget(target: string): { readonly path: string; readonly query: string } | null {
  const relative = target.replace(/^https?:\/\/[^/?#]*/i, '') || '/';
  const [rawPath = '', query = ''] = relative.split('?', 2);
  if (!rawPath.startsWith('/')) return null;
  let path: string;
  try {
    path = decodeURIComponent(rawPath);
  } catch {
    return null;
  }
  if (path.includes('\0') || path.includes('\\') || /%2f/i.test(rawPath)) return null;
  if (path.split('/').some((segment) => segment === '..' || segment === '.')) return null;
  return { path, query };
}

async function openFile(root: string, path: string): Promise<FileHandle | null> {
  let file: FileHandle | null = null;
  try {
    const resolved = await realpath(join(root, path));
    if (!resolved.startsWith(root.endsWith(sep) ? root : root + sep)) return null;
    file = await open(resolved, 'r');
    if ((await file.stat()).isFile() && !path.endsWith('/')) return file;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (!['ENOENT', 'ENOTDIR', 'EISDIR', 'ELOOP', 'ENAMETOOLONG', 'EACCES'].includes(code ?? '')) throw error;
  }
  await file?.close();
  return null;
}

/** Reads from the open descriptor, so that bytes and entity tag belong to the same file even if it is replaced meanwhile. */
async function readMetadata(state: OriginState, file: FileHandle, path: string): Promise<FileMetadata> {
  const stat = await file.stat({ bigint: true });
  const bytes = Number(stat.size);
  const identity = `${stat.dev}-${stat.ino}-${stat.mtimeNs}-${stat.size}`;
  let etag = state.etags.get(identity);
  if (etag === undefined) {
    const hash = createHash('sha256');
    if (bytes > HASHED_BYTES_MAX) hash.update(`${path}\0${stat.ino}-${stat.mtimeNs}-${stat.size}`);
    else hash.update(await readWhole(file, bytes));
    etag = `"${hash.digest('base64url').slice(0, 27)}"`;
    state.etags.set(identity, etag);
  }
  return { bytes, etag, modifiedMs: Number(stat.mtimeMs) };
}

async function readWhole(file: FileHandle, bytes: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(bytes);
  let at = 0;
  while (at < bytes) {
    const { bytesRead } = await file.read(buffer, at, bytes - at, at);
    if (bytesRead === 0) throw new Error('it shrank while it was read');
    at += bytesRead;
  }
  return buffer;
}

function readConditions(request: IncomingMessage) {
  const field = (name: string): string | undefined => {
    const value = request.headers[name];
    return Array.isArray(value) ? value.join(', ') : value;
  };
  return {
    range: field('range'),
    ifRange: field('if-range'),
    ifMatch: field('if-match'),
    ifNoneMatch: field('if-none-match'),
    ifModifiedSince: field('if-modified-since'),
    ifUnmodifiedSince: field('if-unmodified-since'),
  };
}

function headersFor(chosen: OriginResponse, metadata: FileMetadata, path: string): Record<string, string | number> {
  const shared = {
    ...CORS,
    'accept-ranges': 'bytes',
    etag: metadata.etag,
    'last-modified': new Date(metadata.modifiedMs).toUTCString(),
    'cache-control': 'public, max-age=3600',
  };
  const type = CONTENT_TYPES[extname(path).toLowerCase()] ?? 'application/octet-stream';
  if (chosen.status === 200) return { ...shared, 'content-type': type, 'content-length': metadata.bytes };
  if (chosen.status === 206)
    return {
      ...shared,
      'content-type': type,
      'content-length': chosen.last - chosen.first + 1,
      'content-range': `bytes ${chosen.first}-${chosen.last}/${metadata.bytes}`,
    };
  if (chosen.status === 416) return { ...shared, 'content-length': 0, 'content-range': `bytes */${metadata.bytes}` };
  return chosen.status === 304 ? shared : { ...shared, 'content-length': 0 };
}

/** Beyond the maximum number of paths, requests are counted under `*`. */
function statsFor(state: OriginState, path: string): PathStats {
  const { byPath } = state.stats;
  const name = byPath.has(path) || byPath.size < STATS_PATHS_MAX ? path : '*';
  const stats = byPath.get(name) ?? { requests: 0, bytes: 0 };
  byPath.set(name, stats);
  return stats;
}

function respondWithStats(state: OriginState, query: string, response: ServerResponse): void {
  const { requests, bytes, byPath } = state.stats;
  const stats: OriginStats = {
    requests,
    bytes,
    ...(new URLSearchParams(query).get('paths') === '1' ? { byPath: Object.fromEntries(byPath) } : {}),
  };
  const body = JSON.stringify(stats);
  response.writeHead(200, { ...CORS, 'content-type': 'application/json', 'cache-control': 'no-store' });
  response.end(body);
}

function respondWithError(response: ServerResponse, status: number, message: string): void {
  const body = `${message}\n`;
  response.writeHead(status, {
    ...CORS,
    'content-type': 'text/plain; charset=utf-8',
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
  });
  response.end(response.req.method === 'HEAD' ? undefined : body);
}
