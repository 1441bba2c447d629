// A process: an origin far away. Each request waits one round trip, the first of a connection one more for its set-up; each
// connection carries no more than its rate. What it serves is made up, so that a 10 GB asset takes no disk: the path
// /BYTES/NAME is an asset of that many bytes with a strong entity tag. It counts what it sends.
//
// Not modelled: loss, and the slow start of a TCP connection.

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { tellParent } from '../runtime/process.ts';

export interface DistantSpec {
  readonly roundTripMs: number;
  /** Per connection; 0 is without limit. */
  readonly bytesPerSecond: number;
}

export interface DistantCounts {
  readonly connections: number;
  readonly requests: number;
  readonly bodyBytes: number;
}

const PIECE_BYTES = 65_536;
const spec = JSON.parse(process.env['LARDER_BENCH']!) as DistantSpec;
const piece = Buffer.alloc(PIECE_BYTES, 'larder ');
const counts = { connections: 0, requests: 0, bodyBytes: 0 };
/** When the line of each connection is free for the next byte. */
const freeAt = new WeakMap<Socket, number>();

process.on('disconnect', () => process.exit(0));
const server = createServer({ keepAliveTimeout: 600_000, noDelay: true }, (request, response) => {
  const knownSocket = freeAt.has(request.socket);
  if (!knownSocket) freeAt.set(request.socket, 0);
  counts.requests += 1;
  setTimeout(() => void answer(request, response), spec.roundTripMs * (knownSocket ? 1 : 2));
});
server.on('connection', () => {
  counts.connections += 1;
});
server.listen({ host: '127.0.0.1', port: 0, backlog: 4_096 }, () =>
  tellParent({ kind: 'ready', port: (server.address() as AddressInfo).port }),
);
process.on('message', () => tellParent({ kind: 'counts', ...counts }));

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const [, size = '', name = ''] = (request.url ?? '').split('/');
  const bytes = Number(size);
  if (name === '' || !Number.isSafeInteger(bytes)) return void response.writeHead(404).end();
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
  const first = range === null ? 0 : Number(range[1]);
  const last = range === null || range[2] === '' ? bytes - 1 : Math.min(Number(range[2]), bytes - 1);
  if (first > last) return void response.writeHead(416, { 'content-range': `bytes */${bytes}` }).end();
  response.writeHead(range === null ? 200 : 206, {
    'content-type': 'video/mp4',
    'content-length': last - first + 1,
    'accept-ranges': 'bytes',
    'cache-control': 'public, max-age=31536000, immutable',
    etag: `"${size}-${name}"`,
    ...(range === null ? {} : { 'content-range': `bytes ${first}-${last}/${bytes}` }),
  });
  if (request.method !== 'HEAD') await send(request.socket, response, last - first + 1);
  response.end();
}

/** In pieces, each when the line is free; a wake that comes late sends all that is due by then. */
async function send(socket: Socket, response: ServerResponse, bytes: number): Promise<void> {
  let at = Math.max(freeAt.get(socket)!, performance.now());
  for (let left = bytes; left > 0 && !response.destroyed;) {
    const waitMs = at - performance.now();
    if (waitMs > 1) await new Promise((resolve) => setTimeout(resolve, waitMs));
    const now = Math.min(left, PIECE_BYTES);
    const free = response.write(now === PIECE_BYTES ? piece : piece.subarray(0, now));
    counts.bodyBytes += now;
    left -= now;
    if (spec.bytesPerSecond > 0) at += (now / spec.bytesPerSecond) * 1000;
    if (!free && !response.destroyed) {
      await drained(response);
      // Time in which the reader held it up is not made good for.
      at = Math.max(at, performance.now());
    }
  }
  freeAt.set(socket, at);
}

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      response.off('drain', done);
      response.off('close', done);
      resolve();
    };
    response.on('drain', done);
    response.on('close', done);
  });
}
