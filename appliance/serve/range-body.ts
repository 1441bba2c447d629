// The bytes of one range of one asset version, in order, wherever they are: in a block file, or in the storekeeper's stream while they
// are being fetched. Bytes of another version are never delivered: then the body throws, and the response ends short.

import { Fault } from '../../protocol/faults.ts';
import type { Origin } from '../fetch/origin.ts';
import type { AssetView } from '../http/asset.ts';
import type { ByteSlice, ByteStream } from '../io/byte-stream.ts';
import type { StorekeeperClient } from '../link/client.ts';
import type { FetchReply } from '../link/connection.ts';
import type { Forward } from '../http/cache-status.ts';
import type { Counters } from '../metrics.ts';
import { BLOCK_BYTES } from '../store/block-file.ts';
import { isDiskFault, type BlockReader } from './block-reader.ts';
import { fetchRangeFromOrigin, isStorekeeperDown } from './storekeeper-down.ts';

/** Replies without a byte in a row after which the storekeeper is not asked again. */
const EMPTY_REPLIES_MAX = 3;

export interface RangeBodyDeps {
  readonly reader: BlockReader;
  readonly storekeeper: StorekeeperClient;
  /** Asked directly while the storekeeper is down, within the bounds of the bypass pool. */
  readonly origin: Origin;
  readonly counters: Counters & { touch(asset: AssetView, block: number): void };
}

export class RangeBody {
  readonly #deps: RangeBodyDeps;
  readonly #headers: Readonly<Record<string, string>>;
  #asset: AssetView;
  /** Position in the asset of the next byte. */
  #at: number;
  readonly #end: number;
  #stream: ByteStream | null = null;
  #emptyReplies = 0;
  #hasFetched: boolean;
  #touchedBlock = -1;
  #closed = false;
  /** Bytes that did not come from a block file. */
  fetchedBytes = 0;
  /** What the storekeeper did to bring the first of them. */
  forward: Forward | null = null;

  /** `end` is exclusive. `open` is a reply of the storekeeper whose body begins at `at`. */
  constructor(
    deps: RangeBodyDeps,
    asset: AssetView,
    spec: {
      readonly at: number;
      readonly end: number;
      /** Request fields that go with fetches from the origin. */
      readonly headers: Readonly<Record<string, string>>;
      readonly open: FetchReply | null;
    },
  ) {
    this.#deps = deps;
    this.#asset = asset;
    this.#at = spec.at;
    this.#end = spec.end;
    this.#headers = spec.headers;
    this.#hasFetched = spec.open !== null;
    this.#stream = spec.open?.body ?? null;
  }

  /** Null at the end. Throws the fault that ends the response. */
  next(): ByteSlice | null | Promise<ByteSlice | null> {
    if (this.#closed || this.#at >= this.#end) {
      this.#closeStream();
      return null;
    }
    if (this.#stream !== null) return this.#nextFromStream();
    let slice: ByteSlice | null | Promise<ByteSlice | null>;
    try {
      slice = this.#deps.reader.read(this.#asset, this.#at, this.#end);
    } catch (error) {
      return this.#fetch(error);
    }
    if (slice instanceof Promise)
      return slice.then(
        (read) => (read === null ? this.#fetch(null) : this.#fromDisk(read)),
        (error: unknown) => this.#fetch(error),
      );
    return slice === null ? this.#fetch(null) : this.#fromDisk(slice);
  }

  /** The client is gone: what is open is closed, and what is still on its way when it arrives. */
  close(): void {
    this.#closed = true;
    this.#closeStream();
  }

  #closeStream(): void {
    this.#stream?.close();
    this.#stream = null;
  }

  #fromDisk(slice: ByteSlice): ByteSlice {
    const block = blockOf(this.#at);
    if (block !== this.#touchedBlock) {
      this.#touchedBlock = block;
      this.#deps.counters.touch(this.#asset, block);
    }
    this.#at += slice.bytes.length;
    this.#emptyReplies = 0;
    return slice;
  }

  async #nextFromStream(): Promise<ByteSlice | null> {
    let slice: ByteSlice | null;
    try {
      slice = await this.#stream!.next();
    } catch {
      // The storekeeper died, its fetch failed, or the client stalled. The body continues from disk, or asks again from here and
      // learns the fault.
      this.#stream = null;
      return this.next();
    }
    if (slice === null) {
      this.#stream = null;
      // The fetch counted as the use of a block in which it ended; the next block may have been on disk for years.
      this.#touchedBlock = this.#at % BLOCK_BYTES === 0 ? -1 : blockOf(this.#at);
      return this.next();
    }
    const bytes = slice.bytes.subarray(0, this.#end - this.#at);
    this.#at += bytes.length;
    this.fetchedBytes += bytes.length;
    this.#emptyReplies = 0;
    return { bytes, release: slice.release };
  }

  /** Asks the storekeeper for the bytes from here. `failure` is why the disk did not give them; null when the block is absent. */
  async #fetch(failure: unknown): Promise<ByteSlice | null> {
    if (failure !== null && !isDiskFault(failure)) throw failure;
    this.#emptyReplies += 1;
    if (this.#emptyReplies > EMPTY_REPLIES_MAX)
      throw new Fault('disk_failed', `${this.#asset.key}: byte ${this.#at} is neither on disk nor fetched`, {
        cause: failure,
      });
    const { key, version, id, volume } = this.#asset;
    const continuation = this.#hasFetched;
    this.#hasFetched = true;
    let reply: FetchReply;
    try {
      reply = await this.#deps.storekeeper.fetch({
        key,
        expected: { version, id, volume },
        from: this.#at,
        to: this.#end,
        headers: this.#headers,
        ...{ directives: [], revalidate: null, wantsFullBody: false },
        continuation,
      });
    } catch (error) {
      if (!isStorekeeperDown(error)) throw error;
      const missing = { first: this.#at, last: this.#end - 1, headers: this.#headers, cause: error };
      this.#stream = await fetchRangeFromOrigin(this.#deps, this.#asset, missing);
      return this.next();
    }
    const { head } = reply;
    const isSame = head.kind === 'asset' && head.asset.version === version && head.asset.bytes === this.#asset.bytes;
    if (!isSame) {
      reply.body.close();
      throw new Fault('version_gone', `${key} changed while it was being served`);
    }
    this.#asset = head.asset;
    this.forward ??= head.forward;
    if (head.body) this.#stream = reply.body;
    return this.next();
  }
}

const blockOf = (at: number): number => Math.floor(at / BLOCK_BYTES);
