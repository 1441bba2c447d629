// A serving worker: it takes connections that the supervisor has accepted, answers them, and reports to the storekeeper. This file
// composes it; what a request goes through is in serve/serve.ts and fastpath/fast-path.ts.

import { createServer, type Server as HttpServer } from 'node:http';
import type { Socket } from 'node:net';
import { systemClock } from '../runtime/clock.ts';
import { createLog, type Log } from '../runtime/log.ts';
import { dieOnDefect, followParent, sendToParent } from '../runtime/process.ts';
import { preloadUndici } from '../runtime/undici.ts';
import { FastPath, refuseTunnel, watchBridge } from './fastpath/fast-path.ts';
import { Origin } from './fetch/origin.ts';
import { ALLOW_ALL } from './http/response-headers.ts';
import { BufferPool } from './io/buffer-pool.ts';
import type { FromSupervisor, ToSupervisor, WorkerSpec } from './ipc.ts';
import { LIMITS } from './limits.ts';
import { beat, dieWithParent } from './liveness.ts';
import { StorekeeperClient, WorkerLink } from './link/client.ts';
import { AccessLog } from './serve/access-log.ts';
import { BlockReader, openBlocksMax } from './serve/block-reader.ts';
import { Bypass } from './serve/bypass.ts';
import { WorkerCounters } from './serve/counters.ts';
import { PipelineQueue } from './serve/pipelining.ts';
import { AssetServer } from './serve/serve.ts';
import { ResidentBlocks } from './serve/resident-blocks.ts';
import { filesMax, memoryBytes } from './system-limits.ts';
import { TlsAcceptor } from './tls/acceptor.ts';
import type { TlsSecrets } from './tls/certificate-store.ts';
import { Http2Acceptor } from './tls/http2.ts';
import { growHeapBeforeCollecting } from './v8-tuning.ts';
import { warmUpServer } from './warm-up.ts';

const REPORT_MS = 500;
/** How long a drain waits for the last lines of the access log on a slow disk. */
const LAST_LINES_MS = 2_000;
const DRAIN_POLL_MS = 20;
/** Assumed when the system does not tell. */
const FILES_ASSUMED = 1_024;
const OVERLOADED =
  'HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n';
const NO_TUNNEL = `HTTP/1.1 405 Method Not Allowed\r\nAllow: ${ALLOW_ALL}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`;

const clock = systemClock;
const spec = JSON.parse(process.env['LARDER_WORKER']!) as WorkerSpec;
const log = createLog('worker', { appliance: spec.appliance, worker: String(spec.worker) });
dieOnDefect(log);
growHeapBeforeCollecting();
followParent();
beat(clock);
start(spec, log);

function start(spec: WorkerSpec, log: Log): void {
  const state = { draining: false };
  const serving = createServing(spec, { log, draining: () => state.draining });
  const { counters, access } = serving;
  const link = createLink(spec, serving);
  const http = createHttpServer(serving.server, spec);
  const fastPath = new FastPath({
    ...serving,
    http,
    firstRequestMs: LIMITS.requestHeadMs,
    keepAliveMs: LIMITS.keepAliveMs,
  });
  clock.setInterval(() => fastPath.sweep(), LIMITS.sweepMs).unref();
  const http2 = spec.tls?.http2 === true ? createHttp2(spec, serving) : null;
  const sockets = new Set<Socket>();
  let tls: TlsAcceptor | null = null;

  process.on('message', (message: FromSupervisor, socket: Socket | undefined) => {
    if (message.kind === 'socket') accept(message.number, socket);
    else if (message.kind === 'tls') updateTls(message.secrets);
    else if (message.kind === 'drain') void drain();
  });
  clock.setInterval(report, REPORT_MS).unref();
  preloadUndici();
  // With TLS the worker is ready once it has a certificate.
  const warm = warmUpServer();
  if (spec.tls === null) void warm.then(() => tell({ kind: 'ready' }));
  void warm.then(dieWithParent);

  function accept(number: number, socket: Socket | undefined): void {
    tell({ kind: 'accepted', number });
    // The client hung up before the handle arrived.
    if (socket === undefined) return;
    if (sockets.size >= spec.connectionsMax) {
      counters.add('larder_faults_total', 1, { code: 'overloaded' });
      socket.on('error', () => undefined).end(OVERLOADED, () => socket.destroy());
      return;
    }
    const owned = tls === null ? fastPath.accept(socket) : tls.accept(socket);
    sockets.add(owned);
    owned.on('close', () => sockets.delete(owned));
  }

  function updateTls(secrets: TlsSecrets): void {
    if (tls !== null) return tls.updateContext(secrets);
    tls = new TlsAcceptor({
      secrets,
      handshakeMs: LIMITS.requestHeadMs,
      counters,
      http1: (socket) => fastPath.accept(socket),
      http2: http2 === null ? null : (socket) => http2.accept(socket),
    });
    void warm.then(() => tell({ kind: 'ready' }));
  }

  function report(): void {
    if (!link.isUp) return;
    const counts = counters.drain(sockets.size);
    if (!link.send({ kind: 'report', ...counts })) counters.restore(counts);
  }

  /** Closes idle connections and lets running responses end. The supervisor bounds the time. */
  async function drain(): Promise<void> {
    state.draining = true;
    for (;;) {
      // Not by node:http: a connection that it calls idle may still have the last bytes of a response to send, and it cuts them off.
      fastPath.closeIdle();
      http2?.drain();
      if (sockets.size === 0) break;
      await clock.sleep(DRAIN_POLL_MS);
    }
    await Promise.race([access?.flush(), clock.sleep(LAST_LINES_MS)]);
    report();
    tell({ kind: 'drained' });
    setImmediate(() => process.exit(0));
  }
}

/** Everything that both the fast path and node:http answer with. */
type Serving = ReturnType<typeof createServing>;

function createServing(spec: WorkerSpec, context: { readonly log: Log; readonly draining: () => boolean }) {
  const { appliance, mode, identity, connectionsMax } = spec;
  const { log, draining } = context;
  const counters = new WorkerCounters();
  const pool = new BufferPool();
  const resident = new ResidentBlocks();
  const filesLimit = filesMax() ?? FILES_ASSUMED;
  const reader = new BlockReader(
    pool,
    openBlocksMax({ memoryBytes: memoryBytes(), filesMax: filesLimit, connectionsMax }),
    resident,
  );
  const storekeeper = new StorekeeperClient(pool, () => resident.memory);
  const origin = new Origin({ url: spec.origin, ...identity, clock, counters });
  const access = spec.accessLog === null ? null : new AccessLog(spec.accessLog, { clock, counters, log });
  const shared = {
    appliance,
    mode,
    identity,
    counters,
    reader,
    resident,
    storekeeper,
    origin,
    access,
    clock,
    log,
    draining,
  };
  const bypass = new Bypass(shared);
  return { ...shared, pool, server: new AssetServer({ ...shared, bypass }) };
}

function createLink(spec: WorkerSpec, { server, reader, resident }: Serving): WorkerLink {
  return new WorkerLink({
    worker: spec.worker,
    invalidate: ({ keys, blocks, evicted }) => {
      server.invalidate(keys);
      resident.remove(blocks);
      resident.remove(evicted);
      return reader.closeBlocks(blocks);
    },
    onMemory: (memory) => resident.attach(memory),
    onResident: (blocks) => resident.add(blocks),
    onConnect: () => {
      server.invalidateAll();
      reader.closeAll();
      resident.detach();
    },
    clock,
  });
}

function createHttpServer(server: AssetServer, { identity }: WorkerSpec): HttpServer {
  const pipeline = new PipelineQueue();
  const http = createServer(
    {
      headersTimeout: LIMITS.requestHeadMs,
      // Requests that the appliance answers itself have no body. An upload to the origin may take its time.
      requestTimeout: identity.reverseProxy ? 0 : LIMITS.requestHeadMs,
      keepAliveTimeout: LIMITS.keepAliveMs,
      connectionsCheckingInterval: LIMITS.sweepMs,
      maxHeaderSize: LIMITS.requestHeadBytesMax,
      noDelay: true,
    },
    (request, response) => {
      watchBridge(request, response);
      pipeline.enqueue(request, response, () => void server.serve(request, response));
    },
  );
  // Without a listener Node hangs up on CONNECT.
  http.on('connect', (_request, socket) => refuseTunnel(socket, NO_TUNNEL));
  // The server never listens, because connections arrive by IPC. The event starts its checks of slow and idle connections.
  http.emit('listening');
  return http;
}

function createHttp2(spec: WorkerSpec, { server, counters, draining }: Serving): Http2Acceptor {
  return new Http2Acceptor({
    streamsMax: spec.connectionsMax,
    counters,
    serve: (request, response) => void server.serve(request, response),
    keepAliveMs: LIMITS.keepAliveMs,
    draining,
  });
}

function tell(message: ToSupervisor): void {
  sendToParent(message);
}
