// The messages between workers and their storekeeper, over two Unix sockets in the state directory.
//
// read.sock carries requests of a worker and the storekeeper's replies: a request is one line of JSON, one at a time on each
// connection; its reply comes in frames, first a head that says what the asset is, then bytes, or the slots of the memory tier in which
// they are. For each frame of slots the worker sends an empty line once it has copied the bytes. Closing the connection abandons the
// reply, on either side. link.sock carries lines of JSON both ways: reports up, invalidations down. Processes run in the state
// directory and use these relative names, because the path of a Unix socket may not exceed 107 characters.

import type { HoldingId } from '../../protocol/ids.ts';
import type { AssetView } from '../http/asset.ts';
import type { Forward } from '../http/cache-status.ts';
import type { MemoryName } from '../io/shared-memory.ts';
import type { BlockName, ResidentBlock } from '../store/memory-tier.ts';

export const READ_SOCKET = 'read.sock';
export const LINK_SOCKET = 'link.sock';

/** 16 TiB. */
const BLOCKS_PER_ASSET_MAX = 2 ** 24;

export type LinkRequest =
  /** `memory`: the memory tier that the worker has mapped, by its inode; null without one. */
  | { readonly kind: 'fetch'; readonly request: FetchRequest; readonly memory: string | null }
  | { readonly kind: 'update'; readonly update: CacheUpdate }
  | { readonly kind: 'present'; readonly query: PresenceQuery };

/** Bytes that a worker does not find on disk, or metadata that it does not know. */
export interface FetchRequest {
  readonly key: string;
  /** The asset version that the worker is serving, and the entry that it knows it by; null on first contact. */
  readonly expected: { readonly version: string; readonly id: number; readonly volume: number } | null;
  readonly from: number | 'suffix';
  /** Exclusive; null is the end of the asset. */
  readonly to: number | null;
  /** Request fields that go with a fetch from the origin; none in a fleet. */
  readonly headers: Readonly<Record<string, string>>;
  /** The client's Cache-Control directives, by name; none in a fleet and for requests that no client waits for. */
  readonly directives: readonly (readonly [name: string, argument: string])[];
  /** Set when the stored response is not fresh enough for the client. */
  readonly revalidate: Revalidation | null;
  /** The client wants the whole body, whatever it is: no range, no condition. */
  readonly wantsFullBody: boolean;
  /** The request continues a response that is being sent: it counts for nothing in admission. */
  readonly continuation: boolean;
}

export interface Revalidation {
  /** Of the stored response that the worker knows. A younger one that has been stored meanwhile is the answer. */
  readonly generatedAtMs: number;
  /** No client waits for the outcome (RFC 5861 3). */
  readonly background: boolean;
  /** The worker has just asked the origin itself, by HEAD, and could not reach it. */
  readonly originFailed: boolean;
}

/** Something that a worker forwarded and that changes what may be served. */
export type CacheUpdate =
  /** An unsafe method succeeded (RFC 9111 4.4). */
  | { readonly kind: 'invalidate'; readonly keys: readonly string[] }
  /** The response to a HEAD (RFC 9111 4.3.5). */
  | {
      readonly kind: 'head';
      readonly key: string;
      readonly headers: Readonly<Record<string, string>>;
      readonly answer: Readonly<Record<string, string>>;
      readonly askedMs: number;
      readonly answeredMs: number;
    };

/** Asks whether all these blocks are on disk. */
export interface PresenceQuery {
  readonly id: number;
  readonly volume: number;
  readonly first: number;
  readonly last: number;
}

/** First frame of a reply. */
export type ReplyHead =
  /** The body, if any, begins at `from` and may end before `to`: what follows is on disk. */
  | {
      readonly kind: 'asset';
      readonly asset: AssetView;
      readonly body: boolean;
      /** The origin has just confirmed it, so that it is served whatever its age. */
      readonly validated: boolean;
      readonly forward: Forward | null;
    }
  /** The origin's own response, an error or a redirect. `leftMs` is its remaining freshness when it comes from the negative cache. */
  | {
      readonly kind: 'relay';
      readonly leftMs: number | null;
      readonly status: number;
      readonly headers: Readonly<Record<string, string>>;
      readonly cookies: readonly string[];
      readonly forward: Forward;
    }
  /** Nothing that a cache may keep: the worker forwards the request itself. */
  | { readonly kind: 'bypass'; readonly reason: string }
  /** `only-if-cached`, and it is not. */
  | { readonly kind: 'not-cached' }
  /** The update is in force. */
  | { readonly kind: 'ack' }
  | { readonly kind: 'present'; readonly all: boolean }
  | { readonly kind: 'fault'; readonly code: string; readonly message: string };

/** What a worker counted since its last report. */
export interface WorkerReport {
  /** Blocks that were read, by the number that `blockKey` makes of each. */
  readonly touched: readonly { readonly volume: number; readonly blocks: readonly number[] }[];
  readonly served: readonly { readonly holding: HoldingId; readonly bytes: number; readonly requests: number }[];
  readonly counts: readonly {
    readonly name: string;
    readonly value: number;
    readonly labels: Record<string, string>;
  }[];
  readonly connections: number;
  readonly bytes: number;
  readonly requests: number;
}

export type WorkerMessage =
  | { readonly kind: 'hello'; readonly worker: number; readonly pid: number }
  | ({ readonly kind: 'report' } & WorkerReport)
  /** Nothing that the message `seq` named is remembered any more, nor will it be read in the memory tier. */
  | { readonly kind: 'forgotten'; readonly seq: number }
  /** Nor is a file of it open. */
  | { readonly kind: 'closed'; readonly seq: number };

export type StorekeeperMessage =
  | ({ readonly kind: 'invalidate'; readonly seq: number } & Invalidation)
  /** The memory tier, before the first block in it is announced. */
  | ({ readonly kind: 'memory' } & MemoryName)
  | { readonly kind: 'resident'; readonly blocks: readonly ResidentBlock[] };

/** What a worker must let go of before it confirms. */
export interface Invalidation {
  /** Assets to forget. */
  readonly keys: readonly string[];
  /** Blocks that leave the disk: to close, and to forget in the memory tier. */
  readonly blocks: readonly BlockName[];
  /** Blocks that leave the memory tier alone. */
  readonly evicted: readonly BlockName[];
}

/** One number for a block, exact for ids below 2²⁹; beyond that it names a neighbour, which a touch may. */
export const blockKey = (id: number, number: number): number => id * BLOCKS_PER_ASSET_MAX + number;
export const blockOfKey = (key: number): { readonly id: number; readonly number: number } => ({
  id: Math.floor(key / BLOCKS_PER_ASSET_MAX),
  number: key % BLOCKS_PER_ASSET_MAX,
});
