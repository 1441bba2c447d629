// A worker process: an origin with the latency and bandwidth of a distant one. Each request is delayed by one round trip, the first
// of a connection by one more for its setup, and each connection is limited to a rate. Assets are synthetic, so that a 10 GB asset
// takes no disk: the path /BYTES/NAME is an asset of that size with a strong entity tag, and /hls/COUNT/BYTES/NAME/master.m3u8 a title with
// that many segments. It counts what it sends.
//
// Packet loss and TCP slow start are not modelled.

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { systemClock } from '../runtime/clock.ts';
import { sendToParent } from '../runtime/process.ts';

export interface DelayedOriginSpec {
  readonly roundTripMs: number;
  /** Limit per connection; 0 means none. */
  readonly bytesPerSecond: number;
}

export interface OriginCounts {
  readonly connections: number;
  readonly requests: number;
  readonly bodyBytes: number;
}

const CHUNK_BYTES = 65_536;
const spec = JSON.parse(process.env['LARDER_BENCH']!) as DelayedOriginSpec;
/** All bytes of an asset are alike, so that they do not depend on where a range begins. */
const chunk = Buffer.alloc(CHUNK_BYTES, 'l');
const counts = { connections: 0, requests: 0, bodyBytes: 0 };
/** The instant from which each connection may send its next byte. */
const sendableAtMs = new WeakMap<Socket, number>();

process.on('disconnect', () => process.exit(0));
const server = createServer({ keepAliveTimeout: 600_000, noDelay: true }, (request, response) => {
  const reused = sendableAtMs.has(request.socket);
  if (!reused) sendableAtMs.set(request.socket, 0);
  counts.requests += 1;
  systemClock.setTimeout(() => void respond(request, response), spec.roundTripMs * (reused ? 1 : 2));
});
server.on('connection', () => {
  counts.connections += 1;
});
server.listen({ host: '127.0.0.1', port: 0, backlog: 4_096 }, () =>
  sendToParent({ kind: 'ready', port: (server.address() as AddressInfo).port }),
);
process.on('message', () => sendToParent({ kind: 'counts', ...counts }));

async function respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (request.url?.endsWith('.m3u8') === true) return respondWithPlaylist(request.url, response);
  // A segment lies below its title.
  const path = (request.url ?? '').replace(/^\/hls\/\d+/, '');
  const [, size = '', name = ''] = path.split('/');
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
    etag: `"${path.slice(1).replaceAll('/', '-')}"`,
    ...(range === null ? {} : { 'content-range': `bytes ${first}-${last}/${bytes}` }),
  });
  if (request.method !== 'HEAD') await sendBody(request.socket, response, last - first + 1);
  response.end();
}

function respondWithPlaylist(path: string, response: ServerResponse): void {
  const [, , count = '', bytes = '', name = '', file = ''] = path.split('/');
  const segments = Array.from({ length: Number(count) }, (_, at) => `#EXTINF:4,\n${at}.ts`);
  const lines =
    file === 'master.m3u8'
      ? ['#EXT-X-STREAM-INF:BANDWIDTH=2000000', 'media.m3u8']
      : ['#EXT-X-TARGETDURATION:4', '#EXT-X-PLAYLIST-TYPE:VOD', ...segments, '#EXT-X-ENDLIST'];
  const body = Buffer.from(`#EXTM3U\n#EXT-X-VERSION:3\n${lines.join('\n')}\n`);
  const type = { 'content-type': 'application/vnd.apple.mpegurl', 'content-length': body.length };
  response.writeHead(200, { ...type, etag: `"${path.length}-${count}-${bytes}-${name}"` }).end(body);
}

/** Sends chunks at the rate of the connection. A late timer sends everything that is due by then. */
async function sendBody(socket: Socket, response: ServerResponse, bytes: number): Promise<void> {
  let dueAtMs = Math.max(sendableAtMs.get(socket)!, systemClock.monotonic());
  for (let left = bytes; left > 0 && !response.destroyed;) {
    const waitMs = dueAtMs - systemClock.monotonic();
    if (waitMs > 1) await systemClock.sleep(waitMs);
    const length = Math.min(left, CHUNK_BYTES);
    const writable = response.write(length === CHUNK_BYTES ? chunk : chunk.subarray(0, length));
    counts.bodyBytes += length;
    left -= length;
    if (spec.bytesPerSecond > 0) dueAtMs += (length / spec.bytesPerSecond) * 1000;
    if (!writable && !response.destroyed) {
      await waitForDrain(response);
      // Time that the receiver was not reading is not made up for.
      dueAtMs = Math.max(dueAtMs, systemClock.monotonic());
    }
  }
  sendableAtMs.set(socket, dueAtMs);
}

function waitForDrain(response: ServerResponse): Promise<void> {
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
