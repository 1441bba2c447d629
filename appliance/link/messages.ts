// What workers and their storekeeper say to each other over two Unix sockets in the state directory.
//
// `read.sock`: a worker asks for bytes it does not find on disk by a line of JSON, one at a time on each connection; the answer
// comes in frames, the first of which is the head and says what the asset is, the others are bytes. Who leaves an answer, on
// either side, ends the connection. `link.sock` carries lines of JSON both ways: reports up, things to forget down. Processes
// run in the state directory and use these relative names: a Unix socket's path may not exceed 107 characters.

import type { HoldingId } from '../../protocol/ids.ts';
import type { AssetView } from '../http/asset.ts';
import type { Forward } from '../http/cache-status.ts';
import type { RunKey } from '../store/eviction.ts';

export type { Forward };

export const READ_SOCKET = 'read.sock';
export const LINK_SOCKET = 'link.sock';

export type LinkRequest =
  | { readonly kind: 'read'; readonly ask: FetchRequest }
  | { readonly kind: 'update'; readonly told: CacheUpdate }
  | { readonly kind: 'present'; readonly look: PresenceQuery };

export interface FetchRequest {
  readonly key: string;
  /** The asset version that the worker is in the middle of, and the entry that it knows it by; null on first contact. */
  readonly expected: { readonly version: string; readonly id: number; readonly volume: number } | null;
  readonly from: number | 'suffix';
  /** Exclusive; null is the end of the asset. */
  readonly to: number | null;
  /** Request fields that the origin gets with the fetch; none in a fleet. */
  readonly headers: Readonly<Record<string, string>>;
  /** What is stored may not be served without the origin's word on it. */
  readonly validate: Validation | null;
  /** All of the asset is wanted, whatever it is: no range, no condition. */
  readonly wantsFullBody: boolean;
  /** The request sets limits to age of its own: no error or redirect that is remembered will do. */
  readonly skipNegativeCache: boolean;
  /** `only-if-cached`: the origin is not asked. */
  readonly onlyIfCached: boolean;
  /** The answer to one player goes on: the asset is not asked for anew. */
  readonly continuation: boolean;
}

export interface Validation {
  /** Of the stored answer that the worker knows: if there is a younger one by now, that is the answer. */
  readonly generatedAtMs: number;
  /** Whether the stored answer may be served where the origin is away, or fails with a 5xx. */
  readonly ifUnreachable: boolean;
  readonly ifFailing: boolean;
}

/** What a worker saw pass by that changes what may be served. */
export type CacheUpdate =
  /** An unsafe method succeeded (RFC 9111 4.4). */
  | { readonly kind: 'changed'; readonly keys: readonly string[] }
  /** The answer to a HEAD (RFC 9111 4.3.5). */
  | {
      readonly kind: 'head';
      readonly key: string;
      readonly headers: Readonly<Record<string, string>>;
      readonly answer: Readonly<Record<string, string>>;
      readonly askedMs: number;
      readonly answeredMs: number;
    };

/** Whether all these blocks are on disk. */
export interface PresenceQuery {
  readonly id: number;
  readonly volume: number;
  readonly first: number;
  readonly last: number;
}

/** First frame of an answer. */
export type ReplyHead =
  /** The body, if any, begins at `from` and may end before `to`: what follows is on disk. */
  | {
      readonly kind: 'asset';
      readonly asset: AssetView;
      readonly body: boolean;
      /** Whether the origin spoke for it just now, so that it is served whatever its age. */
      readonly validated: boolean;
      readonly forward: Forward | null;
    }
  /** The origin's own answer; `leftMs` is what is left of its freshness where it was remembered. */
  | {
      readonly kind: 'relay';
      readonly leftMs: number | null;
      readonly status: number;
      readonly headers: Readonly<Record<string, string>>;
      readonly cookies: readonly string[];
      readonly forward: Forward;
    }
  /** Nothing that a cache may keep: ask the origin directly. */
  | { readonly kind: 'bypass'; readonly reason: string }
  /** `storedOnly`, and it is not. */
  | { readonly kind: 'not-cached' }
  /** What was told counts. */
  | { readonly kind: 'ack' }
  | { readonly kind: 'present'; readonly all: boolean }
  | { readonly kind: 'fault'; readonly code: string; readonly message: string };

/** What came to be since the last report. */
export interface WorkerReport {
  readonly touched: readonly { readonly volume: number; readonly runs: readonly RunKey[] }[];
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
  | { readonly kind: 'hello'; readonly worker: number }
  | ({ readonly kind: 'report' } & WorkerReport)
  /** Everything up to this `forget` is closed. */
  | { readonly kind: 'invalidated'; readonly seq: number };

export type StorekeeperMessage = {
  readonly kind: 'invalidate';
  readonly seq: number;
  readonly keys: readonly string[];
  readonly blocks: readonly { readonly volume: number; readonly id: number; readonly number: number }[];
};
