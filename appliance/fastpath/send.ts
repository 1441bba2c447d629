// Writes one fast response after another to a connection: reads pieces from block files that are open here and sends them with
// back-pressure. There is one sender per connection, reused for all its responses, so that a response allocates little.

import { Fault, isFault } from '../../protocol/faults.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { HEAD_ROOM_BYTES, type BufferPool, type PooledBuffer } from '../io/buffer-pool.ts';
import type { ByteSlice } from '../io/byte-stream.ts';
import { LIMITS } from '../limits.ts';
import type { AccessLog, LoggedRequest } from '../serve/access-log.ts';
import type { Counter, WorkerCounters } from '../serve/counters.ts';
import type { CachedAsset } from '../serve/metadata-cache.ts';
import { RangeBody, type RangeBodyDeps } from '../serve/range-body.ts';
import { copyResident, type ResidentBytes } from '../serve/resident-blocks.ts';
import type { AssetServer } from '../serve/serve.ts';
import { BLOCK_BYTES } from '../store/block-file.ts';
import type { ResponseHeads, ResponseHeadSpec } from './response-head.ts';
import type { DirectSocket } from './socket.ts';

/** A response over more blocks takes so long that the fast path would save nothing noticeable. */
const BLOCKS_MAX = 16;
/**
 * After this many waits in a row, each shorter than `PROMPT_WRITE_MS`, the client is about as fast as we are, and the limit of
 * unsent bytes is lifted. A single short wait may be chance.
 */
const PROMPT_WRITES_MIN = 2;
const PROMPT_WRITE_MS = 20;
/** What one call sends from the memory tier, where a piece needs no buffer. */
const RESIDENT_PIECE_BYTES = BLOCK_BYTES;
/** Pieces written in a row before other connections get a turn. With eight of them 4 MiB took a tenth longer. */
const BURST_PIECES_MAX = 2;

export interface ResponseSenderDeps extends RangeBodyDeps {
  readonly server: AssetServer;
  readonly heads: ResponseHeads;
  readonly pool: BufferPool;
  readonly counters: WorkerCounters;
  /** Counters that every response adds to, looked up once. */
  readonly hotCounters: Readonly<
    Record<'partial' | 'full' | 'head' | 'hit' | 'storedBytes' | 'fetchedBytes' | 'fast' | 'aborted', Counter>
  >;
  readonly access: AccessLog | null;
  readonly clock: Clock;
  readonly log: Log;
}

export interface ResponseSenderEvents {
  /** The whole response has been written, possibly before `send` returns. */
  responseSent(): void;
}

export class ResponseSender {
  readonly #socket: DirectSocket;
  readonly #deps: ResponseSenderDeps;
  readonly #events: ResponseSenderEvents;
  /** Null between responses, and during one to HEAD. */
  #hit: CachedAsset | null = null;
  #isSending = false;
  /** Null without an access log. */
  #logged: LoggedRequest | null = null;
  #isPartial = false;
  #first = 0;
  /** Next byte of the asset to read. */
  #offset = 0;
  /** Exclusive. */
  #end = 0;
  /** The buffer of the piece that is being written. */
  #buffer: PooledBuffer | null = null;
  /** The same, if the piece came from `#body`. */
  #slice: ByteSlice | null = null;
  /** The rest of the range, once a piece of it could not be read at once. */
  #body: RangeBody | null = null;
  #touchedBlock = -1;
  /** Pieces since the last wait. */
  #burstPieces = 0;
  /** Both monotonic. */
  #responseStartedMs = 0;
  #writeStartedMs = 0;
  #isSlowClient = false;
  /** Consecutive waits shorter than `PROMPT_WRITE_MS`. */
  #promptWrites = 0;

  constructor(socket: DirectSocket, deps: ResponseSenderDeps, events: ResponseSenderEvents) {
    this.#socket = socket;
    this.#deps = deps;
    this.#events = events;
  }

  /** Sends the response to HEAD. False as in `send`. */
  sendHead(hit: CachedAsset, nowMs: number, logged: LoggedRequest | null): boolean {
    const { pool, heads, hotCounters } = this.#deps;
    const buffer = pool.acquire(0);
    const spec = { nowMs, partial: false, first: 0, last: -1 };
    const headAt = heads.write(hit, spec, buffer.buffer, HEAD_ROOM_BYTES);
    if (headAt === -1) {
      pool.release(buffer);
      return false;
    }
    hotCounters.head.value += 1;
    this.#start(null, spec, logged);
    this.#write(buffer, headAt, HEAD_ROOM_BYTES);
    return true;
  }

  /** False if the response needs the slow path. In that case nothing has been sent or counted. */
  send(hit: CachedAsset, spec: ResponseHeadSpec, logged: LoggedRequest | null): boolean {
    if (!this.#areBlocksOpen(hit, spec)) return false;
    const { pool, heads, reader, hotCounters } = this.#deps;
    const resident = this.#findResident(hit, spec.first, spec.last + 1);
    if (resident !== null) return this.#sendResident(hit, spec, logged, resident);
    const buffer = pool.acquire(this.#pieceBytes(reader.bufferBytes(spec.first, spec.last + 1)));
    let bytes = 0;
    let headAt = -1;
    try {
      bytes = reader.readCached(hit.asset, spec.first, spec.last + 1, buffer);
      if (bytes > 0) headAt = heads.write(hit, spec, buffer.buffer, buffer.payloadAt);
    } catch {
      // The slow path meets the same fault and reports it.
    }
    if (headAt === -1) {
      pool.release(buffer);
      return false;
    }
    hotCounters.hit.value += 1;
    this.#start(hit, spec, logged);
    this.#advance(bytes);
    this.#write(buffer, headAt, buffer.payloadAt + bytes);
    return true;
  }

  #sendResident(
    hit: CachedAsset,
    spec: ResponseHeadSpec,
    logged: LoggedRequest | null,
    resident: ResidentBytes,
  ): boolean {
    const { pool, heads, hotCounters } = this.#deps;
    const buffer = pool.acquire(0);
    const headAt = heads.write(hit, spec, buffer.buffer, HEAD_ROOM_BYTES);
    if (headAt === -1) {
      pool.release(buffer);
      return false;
    }
    hotCounters.hit.value += 1;
    this.#start(hit, spec, logged);
    this.#writeResident(resident, buffer, headAt);
    return true;
  }

  /** Null unless the beginning of these bytes can be sent from the memory tier. */
  #findResident({ asset }: CachedAsset, from: number, to: number): ResidentBytes | null {
    if (!this.#socket.isDirect) return null;
    const bytesMax = this.#isSlowClient ? LIMITS.smallBufferBytes : RESIDENT_PIECE_BYTES;
    return this.#deps.reader.findResident(asset, from, to, bytesMax);
  }

  /**
   * Sends the head in the buffer, if there is one, and what the kernel takes of the bytes behind it. When it does not take all, as much
   * as fits into the buffer is copied for the stream to write: nothing of the memory tier may be referred to after this turn.
   */
  #writeResident(resident: ResidentBytes, buffer: PooledBuffer | null, headAt: number): void {
    const headBytes = buffer === null ? 0 : HEAD_ROOM_BYTES - headAt;
    const head = buffer === null ? null : { memory: buffer.memory, from: headAt, to: HEAD_ROOM_BYTES };
    this.#writeStartedMs = this.#deps.clock.monotonic();
    const sent = this.#socket.sendFrom(resident.memory, head, resident.slices);
    if (sent === headBytes + resident.bytes) {
      this.#buffer = buffer;
      this.#advance(resident.bytes);
      return this.#onWritten();
    }
    this.#buffer = buffer ?? this.#deps.pool.acquire(resident.bytes - sent);
    const from = Math.max(0, sent - headBytes);
    const to = Math.min(resident.bytes, from + this.#buffer.room);
    copyResident(resident, { from, to }, { memory: this.#buffer.memory, at: HEAD_ROOM_BYTES });
    this.#advance(to);
    const restAt = HEAD_ROOM_BYTES - Math.max(0, headBytes - sent);
    this.#socket.stream.write(this.#buffer.buffer.subarray(restAt, HEAD_ROOM_BYTES + to - from), this.#onDrained);
  }

  /** The connection has closed. */
  abort(): void {
    if (!this.#isSending) return;
    if (this.#hit !== null) this.#deps.hotCounters.aborted.value += 1;
    this.#body?.close();
    this.#finish();
  }

  /** Whether the range is short enough and all its blocks but the first are at hand; reading tells about the first. */
  #areBlocksOpen({ asset }: CachedAsset, { first, last }: ResponseHeadSpec): boolean {
    const firstBlock = Math.floor(first / BLOCK_BYTES);
    const lastBlock = Math.floor(last / BLOCK_BYTES);
    if (lastBlock - firstBlock >= BLOCKS_MAX) return false;
    for (let block = firstBlock + 1; block <= lastBlock; block += 1)
      if (!this.#deps.reader.isAtHand(asset, block)) return false;
    return true;
  }

  #start(hit: CachedAsset | null, spec: ResponseHeadSpec, logged: LoggedRequest | null): void {
    this.#deps.hotCounters.fast.value += 1;
    // The kernel may take a whole response at once. How long that took to reach the client shows only at the next request.
    const nowMs = this.#deps.clock.monotonic();
    if (nowMs - this.#responseStartedMs > LIMITS.slowWriteMs) {
      this.#socket.limitUnsent(true);
      this.#promptWrites = 0;
    }
    this.#responseStartedMs = nowMs;
    this.#isSending = true;
    this.#hit = hit;
    this.#logged = logged;
    this.#isPartial = spec.partial;
    this.#first = spec.first;
    this.#offset = spec.first;
    this.#end = spec.last + 1;
    this.#touchedBlock = -1;
    this.#burstPieces = 0;
  }

  #pieceBytes(remaining: number): number {
    return Math.min(remaining, this.#isSlowClient ? LIMITS.mediumBufferBytes : LIMITS.largeBufferBytes);
  }

  /** Moves on by `bytes`, and records once per block that it is in use. */
  #advance(bytes: number): void {
    const block = Math.floor(this.#offset / BLOCK_BYTES);
    if (block !== this.#touchedBlock) {
      this.#touchedBlock = block;
      this.#deps.counters.touch(this.#hit!.asset, block);
    }
    this.#offset += bytes;
  }

  #write(buffer: PooledBuffer, from: number, to: number): void {
    this.#buffer = buffer;
    this.#writeStartedMs = this.#deps.clock.monotonic();
    if (this.#socket.write(buffer.memory, from, to, this.#onDrained)) this.#onWritten();
  }

  /** The write had to wait for the client. Other connections had their turn meanwhile. */
  readonly #onDrained = (error?: Error | null): void => {
    this.#burstPieces = 0;
    const isPrompt = this.#deps.clock.monotonic() - this.#writeStartedMs < PROMPT_WRITE_MS;
    this.#promptWrites = isPrompt ? this.#promptWrites + 1 : 0;
    if (this.#promptWrites === PROMPT_WRITES_MIN) this.#socket.limitUnsent(false);
    this.#onWritten(error);
  };

  /** A piece has been written, or its write has failed. */
  readonly #onWritten = (error?: Error | null): void => {
    const { pool, clock } = this.#deps;
    if (this.#buffer !== null) pool.release(this.#buffer);
    this.#buffer = null;
    this.#slice?.release();
    this.#slice = null;
    // A destroyed socket reports success for what it still held.
    if (!this.#isSending || this.#socket.stream.destroyed || (error !== null && error !== undefined)) return;
    if (this.#offset >= this.#end) {
      this.#finish();
      this.#events.responseSent();
      return;
    }
    this.#isSlowClient = clock.monotonic() - this.#writeStartedMs > LIMITS.slowWriteMs;
    this.#burstPieces += 1;
    if (this.#burstPieces % BURST_PIECES_MAX === 0) setImmediate(this.#onTurn);
    else this.#writeNext();
  };

  readonly #onTurn = (): void => {
    if (this.#isSending) this.#writeNext();
  };

  #writeNext(): void {
    if (this.#body === null) {
      const { pool, reader } = this.#deps;
      const resident = this.#findResident(this.#hit!, this.#offset, this.#end);
      if (resident !== null) return this.#writeResident(resident, null, HEAD_ROOM_BYTES);
      const buffer = pool.acquire(this.#pieceBytes(reader.bufferBytes(this.#offset, this.#end)));
      let bytes = 0;
      try {
        bytes = reader.readCached(this.#hit!.asset, this.#offset, this.#end, buffer);
      } catch {
        // RangeBody reads again and handles the fault.
      }
      if (bytes > 0) {
        this.#advance(bytes);
        return this.#write(buffer, buffer.payloadAt, buffer.payloadAt + bytes);
      }
      pool.release(buffer);
      const spec = { at: this.#offset, end: this.#end, headers: {}, open: null };
      this.#body = new RangeBody(this.#deps, this.#hit!.asset, spec);
    }
    void this.#writeFromBody(this.#body);
  }

  /** The rest was not in memory after all: it comes from the disk or from the storekeeper. */
  async #writeFromBody(body: RangeBody): Promise<void> {
    try {
      const slice = await body.next();
      if (this.#body !== body) {
        slice?.release();
        return body.close();
      }
      if (slice === null) throw new Fault('internal', 'a range ended before its end');
      this.#slice = slice;
      this.#offset += slice.bytes.length;
      this.#writeStartedMs = this.#deps.clock.monotonic();
      this.#socket.stream.write(slice.bytes, this.#onWritten);
    } catch (error) {
      if (this.#body === body) this.#fail(error);
    }
  }

  /** The length has been promised, so the connection must close before it is reached. */
  #fail(error: unknown): void {
    const { counters, server, log } = this.#deps;
    const { key } = this.#hit!.asset;
    if (!isFault(error)) log.error({ err: error, key: key.slice(0, 200) }, 'request failed');
    counters.add('larder_faults_total', 1, { code: isFault(error) ? error.code : 'internal' });
    server.invalidate([key]);
    this.#finish();
    this.#socket.reset();
  }

  /** Logs and counts the response. */
  #finish(): void {
    this.#isSending = false;
    const { hotCounters, counters, access } = this.#deps;
    const bytes = this.#offset - this.#first;
    const status = this.#isPartial ? 206 : 200;
    if (this.#logged !== null) access!.add(this.#logged, { status, bytes, outcome: 'hit' });
    this.#logged = null;
    const hit = this.#hit;
    if (hit === null) return;
    const fetchedBytes = this.#body?.fetchedBytes ?? 0;
    (this.#isPartial ? hotCounters.partial : hotCounters.full).value += 1;
    hotCounters.storedBytes.value += bytes - fetchedBytes;
    hotCounters.fetchedBytes.value += fetchedBytes;
    counters.served(hit.asset.holding, bytes);
    this.#hit = null;
    this.#body = null;
  }
}
