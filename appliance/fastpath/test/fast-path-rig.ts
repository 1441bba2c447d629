// The serving half of a worker inside a test: block files on disk, node:http with the fast path beside it, and connections in
// memory whose chunks are exactly those that the test wrote.

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
import { BLOCK_BYTES, blockBytes, blockCount, payloadOf, writeBlock } from '../../store/block-file.ts';
import { FastPath, watchBridge } from '../fast-path.ts';
import type { AssetView } from '../../http/asset.ts';
import type { Forward } from '../../http/cache-status.ts';
import type { StorekeeperClient } from '../../link/client.ts';
import type { Origin } from '../../fetch/origin.ts';
import { Bypass } from '../../serve/bypass.ts';
import { BufferPool } from '../../io/buffer-pool.ts';
import { byteStreamOf } from '../../io/byte-stream.ts';
import { OwnedMemory } from '../../io/shared-memory.ts';
import { ResidentBlocks } from '../../serve/resident-blocks.ts';
import { SLOT_BYTES, type ResidentBlock } from '../../store/memory-tier.ts';
import { BlockReader } from '../../serve/block-reader.ts';
import { AssetServer } from '../../serve/serve.ts';
import { WorkerCounters } from '../../serve/counters.ts';
import { PipelineQueue } from '../../serve/pipelining.ts';
import { blockPath } from '../../store/layout.ts';
import { eventLoopRounds } from '../../test/waiting.ts';

/** Rounds of the event loop without a byte after which none follows: nothing here waits for a disk or a network. */
const QUIET_ROUNDS = 12;
/** A server that waits for the rest of a request body does so for minutes; the client hangs up instead. */
const HANG_UP_MS = 5_000;

const TIER_SLOTS = 1_024;

const ABSENT = 'no such asset\n';
const MISSED: Forward = { reason: 'uri-miss', status: 404, stored: false, collapsed: false };

export class FastPathRig {
  readonly directory = mkdtempSync(join(tmpdir(), 'larder-fast-path-'));
  readonly counters = new WorkerCounters();
  readonly reader: BlockReader;
  readonly server: AssetServer;
  readonly http: HttpServer;
  readonly fastPath: FastPath;
  readonly assets = new Map<string, AssetView>();
  /** Passes its connections to the fast path, as a worker does. */
  readonly #tcp: TcpServer = listen(
    { pauseOnConnect: true, noDelay: true },
    (socket) => void this.fastPath.accept(socket),
  );
  draining = false;
  #ids = 0;
  readonly #resident = new ResidentBlocks();
  #memory: OwnedMemory | null = null;
  #slotsUsed = 0;

  constructor(mode: KeyMode = 'alone', clock: Clock = systemClock) {
    const pool = new BufferPool();
    this.reader = new BlockReader(pool, 1_024, this.#resident);
    const storekeeper = {
      fetch: async ({ key }: { readonly key: string }) => this.#reply(key),
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
    const pipeline = new PipelineQueue();
    this.http = createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
      watchBridge(request, response);
      pipeline.enqueue(request, response, () => void this.server.serve(request, response));
    });
    // As in a worker: from here on node:http tracks its connections.
    this.http.emit('listening');
    const { server, http } = this;
    this.fastPath = new FastPath({
      server,
      http,
      pool,
      ...shared,
      ...rest,
      firstRequestMs: 10_000,
      keepAliveMs: 60_000,
    });
  }

  /** Writes an asset to disk and reads it once, so that no part of it is cold. */
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
      const { crcs } = payloadOf(payload);
      await writeBlock(path, { ...head, crcs, headers: view.headers, holding: null }, payloadOf(payload));
    }
    this.assets.set(key, view);
    await this.warmUp(key);
  }

  /** Puts the blocks of an asset into the memory tier, in slots of which no two are neighbours in order. Returns them. */
  makeResident(key: string, body: Buffer): ResidentBlock[] {
    if (this.#memory === null) {
      this.#memory = OwnedMemory.create({ slots: TIER_SLOTS, slotBytes: SLOT_BYTES })!;
      this.#resident.attach(this.#memory.name);
    }
    const { id, volume, version } = this.assets.get(key)!;
    const blocks: ResidentBlock[] = [];
    for (let number = 0; number < blockCount(body.length); number += 1) {
      const payload = body.subarray(number * BLOCK_BYTES).subarray(0, blockBytes(body.length, number));
      const slots = Array.from({ length: Math.ceil(payload.length / SLOT_BYTES) }, (_, at) => this.#slotsUsed + at);
      this.#slotsUsed += slots.length;
      slots.reverse();
      blocks.push({ volume, id, number, key, version, bytes: payload.length, slots });
      for (const [at, slot] of slots.entries()) payload.copy(this.#memory.slot(slot), 0, at * SLOT_BYTES);
    }
    this.#resident.add(blocks);
    return blocks;
  }

  /** What the storekeeper says is in the tier. */
  announce(blocks: readonly ResidentBlock[]): void {
    this.#resident.add(blocks);
  }

  /** Withdraws blocks and uses their slots for something else at once, as the storekeeper may once this worker has confirmed. */
  evict(blocks: readonly ResidentBlock[]): void {
    this.#resident.remove(blocks);
    const other = Buffer.alloc(SLOT_BYTES, 'other bytes ');
    for (const slot of blocks.flatMap(({ slots }) => slots)) other.copy(this.#memory!.slot(slot));
  }

  async warmUp(key: string): Promise<void> {
    await this.exchange('fast', [`GET ${key} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`]);
  }

  /** Opens a connection in memory: `fast` may take the fast path, `slow` goes through node:http alone. */
  open(way: 'fast' | 'slow', options: MemorySocketOptions = {}): MemorySocket {
    const [client, server] = memorySocketPair(options);
    if (way === 'fast') this.fastPath.accept(server as unknown as Socket);
    else this.http.emit('connection', server);
    return client;
  }

  /**
   * Everything that comes back on one connection. Each chunk is sent when the responses to the chunks before it have come:
   * in node:http a malformed request spoils responses that are still being sent, which the fast path need not imitate.
   */
  async exchange(
    way: 'fast' | 'slow',
    chunks: readonly (string | Buffer)[],
    options: MemorySocketOptions = {},
  ): Promise<Buffer> {
    const client = this.open(way, options);
    const received: Buffer[] = [];
    client.on('data', (chunk: Buffer) => received.push(chunk));
    const ended = new Promise((resolve) => client.once('close', resolve));
    for (const chunk of chunks) {
      client.write(chunk, 'latin1');
      for (let quiet = 0, seen = 0; quiet < QUIET_ROUNDS; quiet += 1) {
        if (received.length > seen) quiet = 0;
        seen = received.length;
        await eventLoopRounds(1);
      }
    }
    const hangUp = systemClock.setTimeout(() => client.destroy(), HANG_UP_MS);
    await ended;
    systemClock.clear(hangUp);
    return Buffer.concat(received);
  }

  /** A TCP connection that is handed to the fast path. */
  async connect(): Promise<Socket> {
    if (!this.#tcp.listening) await once(this.#tcp.listen(0, '127.0.0.1'), 'listening');
    const client = connect({ port: (this.#tcp.address() as AddressInfo).port, host: '127.0.0.1', noDelay: true });
    await once(client, 'connect');
    return client;
  }

  /** Sum of a counter since the last call; all counters start again from 0. */
  drainCount(name: string): number {
    const { counts } = this.counters.drain(0);
    return counts.filter((count) => count.name === name).reduce((sum, { value }) => sum + value, 0);
  }

  close(): void {
    this.#tcp.close();
    this.http.close();
    rmSync(this.directory, { recursive: true, force: true });
  }

  #reply(key: string): object {
    const asset = this.assets.get(key);
    const body = byteStreamOf(Readable.from([Buffer.from(ABSENT)]));
    const headers = { 'content-type': 'text/plain', 'content-length': String(ABSENT.length) };
    return asset === undefined
      ? { head: { kind: 'relay', status: 404, headers, cookies: [], forward: MISSED }, body }
      : { head: { kind: 'asset', asset, body: false, validated: true, forward: null }, body };
  }
}

interface MemorySocketOptions {
  /** Writes complete in a later round of the event loop, as into a full socket. */
  readonly deferWrites?: boolean;
  /** No write completes until `unblock`: the client does not read. */
  readonly blocked?: boolean;
}

/** One end of a connection in memory: what it writes, its peer reads, chunk by chunk. */
export class MemorySocket extends Duplex {
  peer!: MemorySocket;
  readonly #deferWrites: boolean;
  #blocked: boolean;
  #held: { readonly chunk: Buffer; readonly done: () => void } | null = null;

  constructor(options: MemorySocketOptions) {
    super({ allowHalfOpen: false });
    this.#deferWrites = options.deferWrites ?? false;
    this.#blocked = options.blocked ?? false;
    this.on('error', () => undefined);
  }

  /** Bytes of the write that has not completed: the writer may not reuse their buffer. */
  get blockedBytes(): number {
    return this.#held?.chunk.length ?? 0;
  }

  block(): void {
    this.#blocked = true;
  }

  unblock(): void {
    this.#blocked = false;
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
    // The peer pushes when it writes.
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    if (this.#blocked) {
      this.#held = { chunk, done };
      return;
    }
    // Copied, because the writer may reuse its buffer once `done` has been called.
    if (!this.peer.destroyed) this.peer.push(Buffer.from(chunk));
    if (this.#deferWrites) setImmediate(done);
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
    // A real handle reports its close in a later round of the event loop.
    setImmediate(done, error);
  }
}

function memorySocketPair(options: MemorySocketOptions): [MemorySocket, MemorySocket] {
  const [client, server] = [new MemorySocket({}), new MemorySocket(options)];
  client.peer = server;
  server.peer = client;
  return [client, server];
}
