// The serving part of a worker inside a test: block files on disk, node:http, the short way beside it, and connections whose
// chunks are exactly those that the test wrote.

import { once } from 'node:events';
import { createServer, type Server as HttpServer } from 'node:http';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer as listen, type AddressInfo, type Server as TcpServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { Duplex, Readable } from 'node:stream';
import { systemClock, type Clock } from '../../../runtime/clock.ts';
import { silentLog } from '../../../runtime/log.ts';
import type { KeyMode } from '../../http/asset-key.ts';
import { BLOCK_BYTES, blockBytes, blockCount, chunkCrcs, writeBlock } from '../../store/block-file.ts';
import { FastPath, watchBridge } from '../fast-path.ts';
import type { AssetView } from '../../http/asset.ts';
import type { Forward } from '../../http/cache-status.ts';
import type { StorekeeperClient } from '../../link/client.ts';
import type { Origin } from '../../fetch/origin.ts';
import { Bypass } from '../../serve/bypass.ts';
import { BufferPool } from '../../io/buffer-pool.ts';
import { byteStreamOf } from '../../io/byte-stream.ts';
import { BlockReader } from '../../serve/block-reader.ts';
import { AssetServer } from '../../serve/serve.ts';
import { WorkerCounters } from '../../serve/counters.ts';
import { PipelineQueue } from '../../serve/pipelining.ts';
import { blockPath } from '../../store/layout.ts';

/** Turns of the event loop without a byte, after which none is to come: nothing here waits for a disk or a network. */
const QUIET_TURNS = 12;
/** A server that waits for the rest of a body would wait for minutes; the player leaves. */
const PATIENCE_MS = 5_000;

const ABSENT = 'no such asset\n';
const MISSED: Forward = { reason: 'uri-miss', status: 404, stored: false, collapsed: false };

export class LaneRig {
  readonly directory = mkdtempSync(join(tmpdir(), 'larder-lane-'));
  readonly counters = new WorkerCounters();
  readonly reader: BlockReader;
  readonly server: AssetServer;
  readonly http: HttpServer;
  readonly lane: FastPath;
  readonly views = new Map<string, AssetView>();
  /** Its connections come to the lane as a worker's do. */
  readonly #tcp: TcpServer = listen({ pauseOnConnect: true, noDelay: true }, (socket) => void this.lane.accept(socket));
  draining = false;
  #ids = 0;

  constructor(mode: KeyMode = 'alone', clock: Clock = systemClock) {
    const pool = new BufferPool();
    this.reader = new BlockReader(pool, 1_024);
    const storekeeper = {
      fetch: async (request: { readonly key: string }) => this.#answer(request.key),
      arePresent: async () => true,
    } as unknown as StorekeeperClient;
    const identity = { reverseProxy: false, via: 'box-1' };
    const shared = {
      reader: this.reader,
      storekeeper,
      identity,
      clock,
      origin: {} as unknown as Origin,
      counters: this.counters,
      access: null,
    };
    const rest = { mode, log: silentLog, draining: () => this.draining };
    this.server = new AssetServer({ appliance: 'box-1', bypass: new Bypass(shared), ...shared, ...rest });
    const turns = new PipelineQueue();
    this.http = createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
      watchBridge(request, response);
      turns.enqueue(request, response, () => void this.server.serve(request, response));
    });
    // As in a worker: node:http keeps count of its connections from here on.
    this.http.emit('listening');
    const { server, http } = this;
    this.lane = new FastPath({ server, http, pool, ...shared, ...rest, firstRequestMs: 10_000, keepAliveMs: 60_000 });
  }

  /** On disk, located and read once, so that nothing of it is cold. */
  async put(
    key: string,
    body: Buffer,
    options: { readonly headers?: Readonly<Record<string, string>>; readonly generatedAtMs?: number } = {},
  ): Promise<void> {
    const id = (this.#ids += 1);
    const view: AssetView = {
      ...{
        key,
        version: `"v${id}"`,
        originTag: null,
        bytes: body.length,
        holding: null,
        id,
        volume: 0,
        directory: this.directory,
      },
      headers: { etag: `"v${id}"`, 'content-type': 'video/mp4', ...options.headers },
      generatedAtMs: options.generatedAtMs ?? null,
    };
    for (let number = 0; number < blockCount(body.length); number += 1) {
      const payload = body.subarray(number * BLOCK_BYTES).subarray(0, blockBytes(body.length, number));
      const path = blockPath(this.directory, id, number);
      mkdirSync(dirname(path), { recursive: true });
      const { version, generatedAtMs } = view;
      const head = { key, version, assetBytes: body.length, number, bytes: payload.length, generatedAtMs };
      await writeBlock(path, { ...head, crcs: chunkCrcs(payload), headers: view.headers, holding: null }, payload);
    }
    this.views.set(key, view);
    await this.warm(key);
  }

  async warm(key: string): Promise<void> {
    await this.converse('short', [`GET ${key} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`]);
  }

  /** A connection of a player's: `short` may take the short way, `long` is node:http's alone. */
  open(way: 'short' | 'long', options: EndOptions = {}): End {
    const [player, ours] = endsOf(options);
    if (way === 'short') this.lane.accept(ours as unknown as Socket);
    else this.http.emit('connection', ours);
    return player;
  }

  /**
   * Everything that comes back until the connection ends, or the player's patience. Each chunk is sent when the answers to those before it have come:
   * node:http lets a broken request spoil answers that are under way, the short way need not.
   */
  async converse(
    way: 'short' | 'long',
    chunks: readonly (string | Buffer)[],
    options: EndOptions = {},
  ): Promise<Buffer> {
    const player = this.open(way, options);
    const received: Buffer[] = [];
    player.on('data', (chunk: Buffer) => received.push(chunk));
    const ended = new Promise((resolve) => player.once('close', resolve));
    for (const chunk of chunks) {
      player.write(chunk, 'latin1');
      for (let quiet = 0, had = 0; quiet < QUIET_TURNS; quiet += 1) {
        if (received.length > had) quiet = 0;
        had = received.length;
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
    const leaves = setTimeout(() => player.destroy(), PATIENCE_MS);
    await ended;
    clearTimeout(leaves);
    return Buffer.concat(received);
  }

  /** A real connection that goes the short way. */
  async connect(): Promise<Socket> {
    if (!this.#tcp.listening) await once(this.#tcp.listen(0, '127.0.0.1'), 'listening');
    const player = connect({ port: (this.#tcp.address() as AddressInfo).port, host: '127.0.0.1', noDelay: true });
    await once(player, 'connect');
    return player;
  }

  /** What was counted since the last look. */
  count(name: string): number {
    const { counts } = this.counters.drain(0);
    return counts.filter((count) => count.name === name).reduce((sum, { value }) => sum + value, 0);
  }

  close(): void {
    this.#tcp.close();
    this.http.close();
    rmSync(this.directory, { recursive: true, force: true });
  }

  #answer(key: string): object {
    const asset = this.views.get(key);
    const body = byteStreamOf(Readable.from([Buffer.from(ABSENT)]));
    const headers = { 'content-type': 'text/plain', 'content-length': String(ABSENT.length) };
    return asset === undefined
      ? { head: { kind: 'relay', status: 404, headers, cookies: [], forward: MISSED }, body }
      : { head: { kind: 'asset', asset, body: false, validated: true, forward: null }, body };
  }
}

interface EndOptions {
  /** A write is done only in a later turn of the event loop, as into a full socket. */
  readonly late?: boolean;
  /** No write is done until `unstick`: the player takes nothing. */
  readonly stuck?: boolean;
}

/** Half of a connection in memory: what one end writes is what the other reads, chunk by chunk. */
export class End extends Duplex {
  peer!: End;
  readonly #late: boolean;
  #stuck: boolean;
  #held: { readonly chunk: Buffer; readonly done: () => void } | null = null;

  constructor(options: EndOptions) {
    super({ allowHalfOpen: false });
    this.#late = options.late ?? false;
    this.#stuck = options.stuck ?? false;
    this.on('error', () => undefined);
  }

  /** Bytes that the writer cannot have back yet. */
  get heldBytes(): number {
    return this.#held?.chunk.length ?? 0;
  }

  stick(): void {
    this.#stuck = true;
  }

  unstick(): void {
    this.#stuck = false;
    const held = this.#held;
    this.#held = null;
    if (held !== null) this._write(held.chunk, '', held.done);
  }

  destroySoon(): void {
    if (this.writable) this.end();
    if (this.writableFinished) this.destroy();
    else this.once('finish', () => this.destroy());
  }

  override _read(): void {
    // The peer pushes when it has something.
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    if (this.#stuck) {
      this.#held = { chunk, done };
      return;
    }
    // Copied: the writer's buffer is its own again when this is done.
    if (!this.peer.destroyed) this.peer.push(Buffer.from(chunk));
    if (this.#late) setImmediate(done);
    else done();
  }

  override _final(done: () => void): void {
    this.peer.push(null);
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    if (!this.peer.readableEnded) this.peer.push(null);
    this.#held?.done();
    this.#held = null;
    // A real handle says that it is closed a turn later.
    setImmediate(done, error);
  }
}

function endsOf(options: EndOptions): [End, End] {
  const [player, ours] = [new End({}), new End(options)];
  player.peer = ours;
  ours.peer = player;
  return [player, ours];
}
