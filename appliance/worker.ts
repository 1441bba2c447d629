// A serving worker: takes connections that the supervisor accepted, answers them, reports to the storekeeper.

import { createServer } from 'node:http';
import type { Socket } from 'node:net';
import { systemClock } from '../runtime/clock.ts';
import { createLog } from '../runtime/log.ts';
import { dieOnDefect, followParent, tellParent } from '../runtime/process.ts';
import { loadUndiciSoon } from '../runtime/undici.ts';
import { AccessLog } from './serve/access-log.ts';
import { ALLOW_ALL } from './http/response-headers.ts';
import type { WorkerSpec, ToSupervisor, FromSupervisor } from './ipc.ts';
import { FastPath, refuseTunnel, watchBridge } from './fastpath/fast-path.ts';
import { WorkerLink, StorekeeperClient } from './link/client.ts';
import { filesMax, memoryBytes } from './system-limits.ts';
import { growHeapBeforeCollecting, optimizeEarly } from './v8-tuning.ts';
import { Origin } from './fetch/origin.ts';
import { Bypass } from './serve/bypass.ts';
import { BufferPool } from './io/buffer-pool.ts';
import { BlockReader, openBlocksMax } from './serve/block-reader.ts';
import { AssetServer } from './serve/serve.ts';
import { WorkerCounters } from './serve/counters.ts';
import { TlsAcceptor } from './tls/acceptor.ts';
import { Http2Acceptor } from './tls/http2.ts';
import type { TlsSecrets } from './tls/certificate-store.ts';
import { PipelineQueue } from './serve/pipelining.ts';

const REPORT_MS = 500;
/** For the last lines of the access record, on a disk that takes its time. */
const LAST_LINES_MS = 2_000;
const HEADERS_MS = 10_000;
const KEEP_ALIVE_MS = 60_000;
const CONNECTIONS_CHECK_MS = 1_000;
const HEADER_BYTES_MAX = 16 * 1024;
/** Where the system does not tell. */
const FILES_ASSUMED = 1_024;
const REFUSAL = 'HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n';
const NO_TUNNEL = `HTTP/1.1 405 Method Not Allowed\r\nAllow: ${ALLOW_ALL}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`;

const spec = JSON.parse(process.env['LARDER_WORKER']!) as WorkerSpec;
const log = createLog('worker', { appliance: spec.appliance, worker: String(spec.worker) });
dieOnDefect(log);
growHeapBeforeCollecting();
optimizeEarly();
followParent();

const counters = new WorkerCounters();
const pool = new BufferPool();
const reader = new BlockReader(
  pool,
  openBlocksMax({
    memoryBytes: memoryBytes(),
    filesMax: filesMax() ?? FILES_ASSUMED,
    connectionsMax: spec.connectionsMax,
  }),
);
const { identity } = spec;
const clock = systemClock;
const storekeeper = new StorekeeperClient(pool);
const origin = new Origin({ url: spec.origin, ...identity, clock, counters });
const access = spec.accessLog === null ? null : new AccessLog(spec.accessLog, { clock, counters, log });
let draining = false;
const server = new AssetServer({
  appliance: spec.appliance,
  mode: spec.mode,
  reader,
  identity,
  storekeeper,
  origin,
  pass: new Bypass({ origin, storekeeper, identity, counters, access, clock }),
  counters,
  access,
  clock,
  log,
  draining: () => draining,
});
const link = new WorkerLink({
  worker: spec.worker,
  log,
  invalidate: async (message) => {
    server.invalidate(message.keys);
    await reader.closeBlocks(message.blocks);
  },
  onLinked: () => {
    server.invalidateAll();
    reader.closeAll();
  },
});
const turns = new PipelineQueue();
const http = createServer(
  {
    headersTimeout: HEADERS_MS,
    // What an appliance takes itself has no body; an upload to the origin may take its time.
    requestTimeout: identity.reverseProxy ? 0 : HEADERS_MS,
    keepAliveTimeout: KEEP_ALIVE_MS,
    connectionsCheckingInterval: CONNECTIONS_CHECK_MS,
    maxHeaderSize: HEADER_BYTES_MAX,
    noDelay: true,
  },
  (request, response) => {
    watchBridge(request, response);
    turns.enqueue(request, response, () => void server.serve(request, response));
  },
);

// Node hangs up on CONNECT where nobody listens for it.
http.on('connect', (_request, socket) => refuseTunnel(socket, NO_TUNNEL));

// It never listens: connections come by IPC. The event starts node:http's own checks of slow and idle connections.
http.emit('listening');

const lane = new FastPath({
  mode: spec.mode,
  server,
  http,
  reader,
  pool,
  storekeeper,
  origin,
  identity,
  counters,
  access,
  clock,
  log,
  draining: () => draining,
  firstRequestMs: HEADERS_MS,
  keepAliveMs: KEEP_ALIVE_MS,
});
setInterval(() => lane.sweep(), CONNECTIONS_CHECK_MS).unref();

const http2 =
  spec.tls?.http2 === true
    ? new Http2Acceptor({
        streamsMax: spec.connectionsMax,
        counters,
        serve: (request, response) => void server.serve(request, response),
        keepAliveMs: KEEP_ALIVE_MS,
        draining: () => draining,
      })
    : null;
let door: TlsAcceptor | null = null;
const sockets = new Set<Socket>();

process.on('message', (message: FromSupervisor, socket: Socket | undefined) => {
  if (message.kind === 'socket') take(message.number, socket);
  else if (message.kind === 'tls') speakTls(message.state);
  else if (message.kind === 'drain') void drain();
});
setInterval(report, REPORT_MS).unref();
loadUndiciSoon();
if (spec.tls === null) tell({ kind: 'ready' });

function speakTls(state: TlsSecrets): void {
  if (door !== null) return door.updateContext(state);
  door = new TlsAcceptor({
    state,
    handshakeMs: HEADERS_MS,
    counters,
    http1: (secured) => lane.accept(secured),
    http2: http2 === null ? null : (secured) => http2.accept(secured),
  });
  tell({ kind: 'ready' });
}

function take(number: number, socket: Socket | undefined): void {
  tell({ kind: 'accepted', number });
  // The player hung up on the way here.
  if (socket === undefined) return;
  if (sockets.size >= spec.connectionsMax) {
    counters.add('larder_faults_total', 1, { code: 'overloaded' });
    socket.on('error', () => undefined).end(REFUSAL, () => socket.destroy());
    return;
  }
  const own = door === null ? lane.accept(socket) : door.accept(socket);
  sockets.add(own);
  own.on('close', () => sockets.delete(own));
}

function report(): void {
  if (!link.up) return;
  const taken = counters.drain(sockets.size);
  if (!link.send({ kind: 'report', ...taken })) counters.restore(taken);
}

/** Ends idle connections, lets running answers end; the supervisor bounds the time. */
async function drain(): Promise<void> {
  draining = true;
  for (;;) {
    // Not node:http's own way: what it calls idle may still have an answer's last bytes on their way, and cuts them off.
    lane.closeIdle();
    http2?.drain();
    if (sockets.size === 0) break;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await Promise.race([access?.flush(), new Promise((resolve) => setTimeout(resolve, LAST_LINES_MS))]);
  report();
  tell({ kind: 'drained' });
  setImmediate(() => process.exit(0));
}

function tell(message: ToSupervisor): void {
  tellParent(message);
}
