// A serving worker: takes connections that the supervisor accepted, answers them, reports to the storekeeper.

import { createServer } from 'node:http';
import type { Socket } from 'node:net';
import { systemClock } from '../runtime/clock.ts';
import { createLog } from '../runtime/log.ts';
import { dieOnDefect, followParent, sendToParent } from '../runtime/process.ts';
import { preloadUndici } from '../runtime/undici.ts';
import { AccessRecord } from './serve/access-log.ts';
import { ALLOW_ALL } from './http/response-headers.ts';
import type { WorkerSpec, ToSupervisor, FromSupervisor } from './ipc.ts';
import { FastLane, refuseTunnel, watchBridge } from './fastpath/lane.ts';
import { Link, ReadClient } from './link/client.ts';
import { collectSeldom, filesMax, memoryBytes, optimiseEarly } from './machine.ts';
import { Origin } from './fetch/origin.ts';
import { Pass } from './serve/bypass.ts';
import { PiecePool } from './serve/buffer-pool.ts';
import { BlockReader, openBlocksMax } from './serve/block-reader.ts';
import { Server } from './serve/serve.ts';
import { WorkerTally } from './serve/counters.ts';
import { TlsDoor } from './tls/acceptor.ts';
import { Http2 } from './tls/http2.ts';
import type { TlsState } from './tls/certificate-store.ts';
import { Turns } from './serve/pipelining.ts';

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
collectSeldom();
optimiseEarly();
followParent();

const tally = new WorkerTally();
const pool = new PiecePool();
const reader = new BlockReader(
  pool,
  openBlocksMax({
    memoryBytes: memoryBytes(),
    filesMax: filesMax() ?? FILES_ASSUMED,
    connectionsMax: spec.connectionsMax,
  }),
);
const { manner } = spec;
const clock = systemClock;
const keeper = new ReadClient(pool);
const origin = new Origin({ url: spec.origin, ...manner, clock, tally });
const access = spec.accessLog === null ? null : new AccessRecord(spec.accessLog, { clock, tally, log });
let draining = false;
const server = new Server({
  appliance: spec.appliance,
  mode: spec.mode,
  reader,
  manner,
  keeper,
  origin,
  pass: new Pass({ origin, keeper, manner, tally, access, clock }),
  tally,
  access,
  clock,
  log,
  draining: () => draining,
});
const link = new Link({
  worker: spec.worker,
  log,
  forget: async (message) => {
    server.forget(message.keys);
    await reader.forget(message.blocks);
  },
  onLinked: () => {
    server.forgetAll();
    reader.forgetAll();
  },
});
const turns = new Turns();
const http = createServer(
  {
    headersTimeout: HEADERS_MS,
    // What an appliance takes itself has no body; an upload to the origin may take its time.
    requestTimeout: manner.standsFor ? 0 : HEADERS_MS,
    keepAliveTimeout: KEEP_ALIVE_MS,
    connectionsCheckingInterval: CONNECTIONS_CHECK_MS,
    maxHeaderSize: HEADER_BYTES_MAX,
    noDelay: true,
  },
  (request, response) => {
    watchBridge(request, response);
    turns.take(request, response, () => void server.serve(request, response));
  },
);

// Node hangs up on CONNECT where nobody listens for it.
http.on('connect', (_request, socket) => refuseTunnel(socket, NO_TUNNEL));

// It never listens: connections come by IPC. The event starts node:http's own checks of slow and idle connections.
http.emit('listening');

const lane = new FastLane({
  mode: spec.mode,
  server,
  http,
  reader,
  pool,
  keeper,
  origin,
  manner,
  tally,
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
    ? new Http2({
        streamsMax: spec.connectionsMax,
        tally,
        serve: (request, response) => void server.serve(request, response),
        keepAliveMs: KEEP_ALIVE_MS,
        draining: () => draining,
      })
    : null;
let door: TlsDoor | null = null;
const sockets = new Set<Socket>();

process.on('message', (message: FromSupervisor, socket: Socket | undefined) => {
  if (message.kind === 'socket') take(message.number, socket);
  else if (message.kind === 'tls') speakTls(message.state);
  else if (message.kind === 'drain') void drain();
});
setInterval(report, REPORT_MS).unref();
preloadUndici();
if (spec.tls === null) tell({ kind: 'ready' });

function speakTls(state: TlsState): void {
  if (door !== null) return door.change(state);
  door = new TlsDoor({
    state,
    handshakeMs: HEADERS_MS,
    tally,
    http1: (secured) => lane.take(secured),
    http2: http2 === null ? null : (secured) => http2.take(secured),
  });
  tell({ kind: 'ready' });
}

function take(number: number, socket: Socket | undefined): void {
  tell({ kind: 'taken', number });
  // The player hung up on the way here.
  if (socket === undefined) return;
  if (sockets.size >= spec.connectionsMax) {
    tally.add('larder_faults_total', 1, { code: 'overloaded' });
    socket.on('error', () => undefined).end(REFUSAL, () => socket.destroy());
    return;
  }
  const own = door === null ? lane.take(socket) : door.take(socket);
  sockets.add(own);
  own.on('close', () => sockets.delete(own));
}

function report(): void {
  if (!link.up) return;
  const taken = tally.take(sockets.size);
  if (!link.send({ kind: 'report', ...taken })) tally.putBack(taken);
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
  sendToParent(message);
}
