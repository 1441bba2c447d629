// The bytes of one range of one sealed asset version, in order, wherever they are: a block file, or the storekeeper's
// stream while they land. Never bytes of another version: then the source throws and the answer ends short.

import { Fault, isFault } from '../../protocol/faults.ts';
import { BLOCK_BYTES } from '../store/block-file.ts';
import type { AssetView } from '../http/asset.ts';
import type { Forward } from '../link/messages.ts';
import type { StorekeeperClient } from '../link/client.ts';
import type { FetchReply } from '../link/connection.ts';
import type { Counters } from '../metrics.ts';
import { discardBody, type Origin } from '../fetch/origin.ts';
import { byteStreamOf, type ByteSlice, type ByteStream } from '../io/byte-stream.ts';
import { isDiskFault, type BlockReader } from './block-reader.ts';

/** Answers without a byte in a row before the storekeeper is called a liar. */
const EMPTY_ANSWERS_MAX = 3;

export interface RangeBodyDeps {
  readonly reader: BlockReader;
  readonly storekeeper: StorekeeperClient;
  /** Asked directly while the storekeeper is down, by a pool that bounds it. */
  readonly origin: Origin;
  readonly counters: Counters & { touch(asset: AssetView, block: number): void };
}

export class RangeBody {
  readonly #deps: RangeBodyDeps;
  readonly #headers: Readonly<Record<string, string>>;
  #asset: AssetView;
  #at: number;
  readonly #end: number;
  #stream: ByteStream | null = null;
  #empty = 0;
  #asked: boolean;
  #touchedBlock = -1;
  /** A block that a stream has ended in: it was written while that was read. */
  #landed = -1;
  #cancelled = false;
  /** Bytes that did not come from a block file. */
  fetchedBytes = 0;
  /** What the storekeeper did to bring the first of them. */
  forward: Forward | null = null;

  /** `end` is exclusive. `opening` is an answer of the storekeeper whose body begins at `at`. */
  constructor(
    deps: RangeBodyDeps,
    asset: AssetView,
    spec: {
      readonly at: number;
      readonly end: number;
      /** Request fields that go with fetches. */
      readonly headers: Readonly<Record<string, string>>;
      readonly opening: FetchReply | null;
    },
  ) {
    this.#deps = deps;
    this.#asset = asset;
    this.#at = spec.at;
    this.#end = spec.end;
    this.#headers = spec.headers;
    this.#asked = spec.opening !== null;
    this.#stream = spec.opening?.body ?? null;
  }

  /** Null at the end. Throws the fault that ends the answer. */
  next(): ByteSlice | null | Promise<ByteSlice | null> {
    if (this.#cancelled || this.#at >= this.#end) {
      this.#leave();
      return null;
    }
    if (this.#stream !== null) return this.#follow();
    let piece: ByteSlice | null | Promise<ByteSlice | null>;
    try {
      piece = this.#deps.reader.read(this.#asset, this.#at, this.#end, this.#landed === blockOf(this.#at));
    } catch (error) {
      return this.#ask(error);
    }
    if (piece instanceof Promise)
      return piece.then(
        (found) => (found === null ? this.#ask(null) : this.#local(found)),
        (error: unknown) => this.#ask(error),
      );
    return piece === null ? this.#ask(null) : this.#local(piece);
  }

  /** The reader has left: whatever is open, or comes yet, is let go. */
  close(): void {
    this.#cancelled = true;
    this.#leave();
  }

  #leave(): void {
    this.#stream?.close();
    this.#stream = null;
  }

  #local(piece: ByteSlice): ByteSlice {
    const block = blockOf(this.#at);
    if (block !== this.#touchedBlock) {
      this.#touchedBlock = block;
      this.#deps.counters.touch(this.#asset, block);
    }
    this.#at += piece.bytes.length;
    this.#empty = 0;
    return piece;
  }

  async #follow(): Promise<ByteSlice | null> {
    let piece: ByteSlice | null;
    try {
      piece = await this.#stream!.next();
    } catch {
      // The storekeeper died, its fetch failed, or the reader stalled: it goes on from disk, or asked again from here, or
      // is told why it cannot.
      this.#stream = null;
      return this.next();
    }
    if (piece === null) {
      this.#stream = null;
      // At its end, the next one may have been there for years.
      this.#landed = this.#at % BLOCK_BYTES === 0 ? -1 : blockOf(this.#at);
      // To be asked for is why it came; that does not count again.
      this.#touchedBlock = this.#landed;
      return this.next();
    }
    const bytes = piece.bytes.subarray(0, this.#end - this.#at);
    this.#at += bytes.length;
    this.fetchedBytes += bytes.length;
    this.#empty = 0;
    return { bytes, release: piece.release };
  }

  async #ask(failure: unknown): Promise<ByteSlice | null> {
    if (failure !== null && !isDiskFault(failure)) throw failure;
    this.#empty += 1;
    if (this.#empty > EMPTY_ANSWERS_MAX)
      throw new Fault('disk_failed', `${this.#asset.key}: byte ${this.#at} is neither on disk nor fetched`, {
        cause: failure,
      });
    const { key, version, id, volume } = this.#asset;
    const again = this.#asked;
    this.#asked = true;
    let answer: FetchReply;
    try {
      answer = await this.#deps.storekeeper.fetch({
        key,
        expected: { version, id, volume },
        from: this.#at,
        to: this.#end,
        headers: this.#headers,
        ...{ validate: null, onlyIfCached: false, wantsFullBody: false, skipNegativeCache: false },
        continuation: again,
      });
    } catch (error) {
      if (!isFault(error) || error.code !== 'unreachable') throw error;
      return this.#askOrigin();
    }
    const { head } = answer;
    if (head.kind !== 'asset' || head.asset.version !== this.#asset.version || head.asset.bytes !== this.#asset.bytes) {
      answer.body.close();
      throw new Fault('version_gone', `${this.#asset.key} changed while it was being served`);
    }
    this.#asset = head.asset;
    this.forward ??= head.forward;
    if (head.body) this.#stream = answer.body;
    return this.next();
  }

  /** Bytes of this very version or none: the origin is asked by its entity tag. */
  async #askOrigin(): Promise<ByteSlice | null> {
    this.#deps.counters.add('larder_fallback_total', 1, { name: 'storekeeper_down_origin' });
    const { key, version } = this.#asset;
    const answer = await this.#deps.origin.fetch('bypass', {
      key,
      first: this.#at,
      last: this.#end - 1,
      ifMatch: version,
      headers: this.#headers,
      signal: null,
    });
    if (answer.kind === 'relay') {
      discardBody(answer.body);
      throw new Fault('origin_refused', `${key}: the origin answered ${answer.status}`);
    }
    this.#stream = byteStreamOf(answer.body);
    if (answer.first === this.#at) return this.next();
    this.close();
    throw new Fault(
      'origin_protocol_error',
      `${key}: the origin sent bytes from ${answer.first}, not from ${this.#at}`,
    );
  }
}

const blockOf = (at: number): number => Math.floor(at / BLOCK_BYTES);
