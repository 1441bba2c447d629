// The bytes of one answer on the short way, piece by piece and with back-pressure: read on the spot from block files that are
// open here. Each connection has one of these for all its answers, so that an answer allocates little.

import { Fault, isFault } from '../../protocol/faults.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import type { AccessLog, LoggedRequest } from '../serve/access-log.ts';
import { BLOCK_BYTES } from '../store/block-file.ts';
import type { ResponseHeads, ResponseHeadSpec } from './response-head.ts';
import type { DirectSocket } from './socket.ts';
import type { CachedAsset } from '../serve/metadata-cache.ts';
import {
  HEAD_ROOM_BYTES,
  LARGE_BUFFER_BYTES,
  MEDIUM_BUFFER_BYTES,
  type BufferPool,
  type PooledBuffer,
} from '../io/buffer-pool.ts';
import type { ByteSlice } from '../io/byte-stream.ts';
import type { AssetServer } from '../serve/serve.ts';
import { RangeBody, type RangeBodyDeps } from '../serve/range-body.ts';
import type { Counter, WorkerCounters } from '../serve/counters.ts';

/** A longer answer lasts so long that the long way costs it nothing. */
const BLOCKS_MAX = 16;
/** A piece that took longer to leave had a slow reader: the next is a small one. */
const SLOW_WRITE_MS = 200;
/** So many shorter waits in a row tell a reader who is about as fast as we are; one alone may be a slow one's luck. */
const QUICK_WRITE_MS = 20;
const QUICK_WRITES = 2;
/** Pieces that a socket may take at once before others have their turn: with eight of them 4 MiB took a tenth longer. */
const BURST_PIECES_MAX = 2;

export interface ResponseSenderDeps extends RangeBodyDeps {
  readonly server: AssetServer;
  readonly heads: ResponseHeads;
  readonly pool: BufferPool;
  readonly counters: WorkerCounters;
  readonly access: AccessLog | null;
  readonly clock: Clock;
  readonly log: Log;
  readonly counts: Readonly<
    Record<'partial' | 'whole' | 'head' | 'hit' | 'stored' | 'fetched' | 'fast' | 'aborted', Counter>
  >;
}

export interface ResponseSenderEvents {
  /** All of the answer has left; perhaps before `begin` returns. */
  sent(): void;
}

export class ResponseSender {
  readonly #socket: DirectSocket;
  readonly #deps: ResponseSenderDeps;
  readonly #events: ResponseSenderEvents;
  /** Null between answers and for one without a body. */
  #stored: CachedAsset | null = null;
  #running = false;
  /** For the access record; null where there is none. */
  #asked: LoggedRequest | null = null;
  #ranged = false;
  #first = 0;
  #at = 0;
  #end = 0;
  #slab: PooledBuffer | null = null;
  #piece: ByteSlice | null = null;
  #source: RangeBody | null = null;
  #touchedBlock = -1;
  #pieces = 0;
  #startedAt = 0;
  #writtenAt = 0;
  #slow = false;
  #quick = 0;

  constructor(socket: DirectSocket, deps: ResponseSenderDeps, events: ResponseSenderEvents) {
    this.#socket = socket;
    this.#deps = deps;
    this.#events = events;
  }

  /** RFC 9110 14.2: HEAD knows no ranges. False as in `begin`. */
  head(stored: CachedAsset, nowMs: number, asked: LoggedRequest | null): boolean {
    const { pool, heads, counts } = this.#deps;
    const slab = pool.acquire(0);
    const spec = { nowMs, ranged: false, first: 0, last: -1 };
    const at = heads.write(stored, spec, slab.buffer, HEAD_ROOM_BYTES);
    if (at === -1) {
      pool.release(slab);
      return false;
    }
    counts.head.value += 1;
    this.#start(null, spec, asked);
    this.#write(slab, at, HEAD_ROOM_BYTES);
    return true;
  }

  /** False where not all of it is at hand: then nothing has happened, and the long way knows what to do. */
  begin(stored: CachedAsset, spec: ResponseHeadSpec, asked: LoggedRequest | null): boolean {
    if (!this.#allOpen(stored, spec)) return false;
    const { pool, heads, reader, counts } = this.#deps;
    const slab = pool.acquire(this.#pieceBytes(spec.last - spec.first + 1));
    let bytes = 0;
    let at = -1;
    try {
      bytes = reader.readCached(stored.asset, spec.first, spec.last + 1, slab);
      if (bytes > 0) at = heads.write(stored, spec, slab.buffer, HEAD_ROOM_BYTES);
    } catch {
      // The long way meets the same fault.
    }
    if (at === -1) {
      pool.release(slab);
      return false;
    }
    counts.hit.value += 1;
    this.#start(stored, spec, asked);
    this.#take(bytes);
    this.#write(slab, at, HEAD_ROOM_BYTES + bytes);
    return true;
  }

  /** The connection has ended. */
  abort(): void {
    if (!this.#running) return;
    if (this.#stored !== null) this.#deps.counts.aborted.value += 1;
    this.#source?.close();
    this.#settle();
  }

  #allOpen({ asset }: CachedAsset, { first, last }: ResponseHeadSpec): boolean {
    const from = Math.floor(first / BLOCK_BYTES);
    const to = Math.floor(last / BLOCK_BYTES);
    if (to - from >= BLOCKS_MAX) return false;
    // Of the first block the read itself will tell.
    for (let number = from + 1; number <= to; number += 1) if (!this.#deps.reader.isOpen(asset, number)) return false;
    return true;
  }

  #start(stored: CachedAsset | null, spec: ResponseHeadSpec, asked: LoggedRequest | null): void {
    this.#deps.counts.fast.value += 1;
    // All of an answer may go into the system at once; when the next is asked for tells how long it took to leave it.
    const now = this.#deps.clock.monotonic();
    if (now - this.#startedAt > SLOW_WRITE_MS) {
      this.#socket.limit(true);
      this.#quick = 0;
    }
    this.#startedAt = now;
    this.#running = true;
    this.#stored = stored;
    this.#asked = asked;
    this.#ranged = spec.ranged;
    this.#first = spec.first;
    this.#at = spec.first;
    this.#end = spec.last + 1;
    this.#touchedBlock = -1;
    this.#pieces = 0;
  }

  #pieceBytes(wanted: number): number {
    return Math.min(wanted, this.#slow ? MEDIUM_BUFFER_BYTES : LARGE_BUFFER_BYTES);
  }

  /** Goes on by `bytes`, and says once per block that it is in use. */
  #take(bytes: number): void {
    const block = Math.floor(this.#at / BLOCK_BYTES);
    if (block !== this.#touchedBlock) {
      this.#touchedBlock = block;
      this.#deps.counters.touch(this.#stored!.asset, block);
    }
    this.#at += bytes;
  }

  #write(slab: PooledBuffer, from: number, to: number): void {
    this.#slab = slab;
    this.#writtenAt = this.#deps.clock.monotonic();
    if (this.#socket.write(slab.memory, from, to, this.#onLeft)) this.#onWritten();
  }

  /** The socket had no room for a time, in which others had their turn. */
  readonly #onLeft = (error?: Error | null): void => {
    this.#pieces = 0;
    this.#quick = this.#deps.clock.monotonic() - this.#writtenAt < QUICK_WRITE_MS ? this.#quick + 1 : 0;
    if (this.#quick === QUICK_WRITES) this.#socket.limit(false);
    this.#onWritten(error);
  };

  /** A piece has left, or never will. */
  readonly #onWritten = (error?: Error | null): void => {
    const { pool, clock } = this.#deps;
    if (this.#slab !== null) pool.release(this.#slab);
    this.#slab = null;
    this.#piece?.release();
    this.#piece = null;
    // A socket that was destroyed says of what it still held that it was written.
    if (!this.#running || this.#socket.stream.destroyed || (error !== null && error !== undefined)) return;
    if (this.#at >= this.#end) {
      this.#settle();
      this.#events.sent();
      return;
    }
    this.#slow = clock.monotonic() - this.#writtenAt > SLOW_WRITE_MS;
    this.#pieces += 1;
    if (this.#pieces % BURST_PIECES_MAX === 0) setImmediate(this.#onTurn);
    else this.#next();
  };

  readonly #onTurn = (): void => {
    if (this.#running) this.#next();
  };

  #next(): void {
    if (this.#source === null) {
      const { pool, reader } = this.#deps;
      const slab = pool.acquire(this.#pieceBytes(this.#end - this.#at));
      let bytes = 0;
      try {
        bytes = reader.readCached(this.#stored!.asset, this.#at, this.#end, slab);
      } catch {
        // Asked again below, by those who know what to do about it.
      }
      if (bytes > 0) {
        this.#take(bytes);
        return this.#write(slab, HEAD_ROOM_BYTES, HEAD_ROOM_BYTES + bytes);
      }
      pool.release(slab);
      const spec = { at: this.#at, end: this.#end, headers: {}, open: null };
      this.#source = new RangeBody(this.#deps, this.#stored!.asset, spec);
    }
    void this.#follow(this.#source);
  }

  /** Not all of it was at hand after all: on by way of the disk and the storekeeper. */
  async #follow(source: RangeBody): Promise<void> {
    try {
      const piece = await source.next();
      if (this.#source !== source) {
        piece?.release();
        return source.close();
      }
      if (piece === null) throw new Fault('internal', 'a range ended before its end');
      this.#piece = piece;
      this.#at += piece.bytes.length;
      this.#writtenAt = this.#deps.clock.monotonic();
      this.#socket.stream.write(piece.bytes, this.#onWritten);
    } catch (error) {
      if (this.#source === source) this.#fail(error);
    }
  }

  /** A short read is the only honest answer left: the length was promised. */
  #fail(error: unknown): void {
    const { counters, server, log } = this.#deps;
    const { key } = this.#stored!.asset;
    if (!isFault(error)) log.error({ err: error, key: key.slice(0, 200) }, 'request failed');
    counters.add('larder_faults_total', 1, { code: isFault(error) ? error.code : 'internal' });
    server.invalidate([key]);
    this.#settle();
    this.#socket.stream.destroy();
  }

  /** Accounts for the answer and is ready for the next. */
  #settle(): void {
    this.#running = false;
    const { counts, counters, access } = this.#deps;
    const sent = this.#at - this.#first;
    const status = this.#ranged ? 206 : 200;
    if (this.#asked !== null) access!.add(this.#asked, { status, bytes: sent, outcome: 'hit' });
    this.#asked = null;
    const stored = this.#stored;
    if (stored === null) return;
    const fetched = this.#source?.fetchedBytes ?? 0;
    (this.#ranged ? counts.partial : counts.whole).value += 1;
    counts.stored.value += sent - fetched;
    counts.fetched.value += fetched;
    counters.served(stored.asset.holding, sent);
    this.#stored = null;
    this.#source = null;
  }
}
