// What workers and their storekeeper say to each other over two Unix sockets in the state directory.
//
// `read.sock` speaks HTTP: a worker asks for bytes it does not find on disk; the head of the answer says what the asset
// is, the body is the bytes. `link.sock` carries lines of JSON both ways: reports up, things to forget down. Processes run
// in the state directory and use these relative names: a Unix socket's path may not exceed 107 characters.

import type { HoldingId } from '../protocol/ids.ts';
import type { RunKey } from './eviction.ts';

export const READ_SOCKET = 'read.sock';
export const LINK_SOCKET = 'link.sock';
export const HEAD_FIELD = 'x-larder';
export const LINE_CHARS_MAX = 8 * 2 ** 20;

/** Sent as JSON in `x-larder` of `GET /read`. */
export interface Ask {
  readonly key: string;
  /** The asset version that the worker is in the middle of, and the entry that it knows it by; null on first contact. */
  readonly known: { readonly version: string; readonly id: number; readonly volume: number } | null;
  readonly from: number | 'suffix';
  /** Exclusive; null is the end of the asset. */
  readonly to: number | null;
  /** The answer to one player goes on: the asset is not asked for anew. */
  readonly again?: boolean;
}

/** An asset version as workers know it. */
export interface AssetView {
  readonly key: string;
  readonly version: string;
  readonly bytes: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly holding: HoldingId | null;
  readonly id: number;
  readonly volume: number;
  readonly directory: string;
}

/** `x-larder` of the answer. */
export type Head =
  /** The body, if any, begins at `from` and may end before `to`: what follows is on disk. */
  | {
      readonly kind: 'asset';
      readonly asset: AssetView;
      readonly body: boolean;
      /** Whether this ask made the asset known, so that the origin was asked whatever the body says. */
      readonly fresh: boolean;
      /** Whether what is fetched of the asset goes to disk, as far as admission is concerned. */
      readonly stored: boolean;
    }
  /** The origin's own answer. */
  | { readonly kind: 'relay'; readonly status: number; readonly headers: Readonly<Record<string, string>> }
  /** Nothing that a cache may keep: ask the origin directly. */
  | { readonly kind: 'pass'; readonly reason: string }
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

export type UpMessage =
  | { readonly kind: 'hello'; readonly worker: number }
  | ({ readonly kind: 'report' } & WorkerReport)
  /** Everything up to this `forget` is closed. */
  | { readonly kind: 'forgotten'; readonly seq: number };

export type DownMessage = {
  readonly kind: 'forget';
  readonly seq: number;
  readonly keys: readonly string[];
  readonly blocks: readonly { readonly volume: number; readonly id: number; readonly number: number }[];
};

/** Splits a stream of text into lines, bounded. */
export function lineSplitter(onLine: (line: string) => void): (chunk: string) => void {
  let rest = '';
  return (chunk) => {
    rest += chunk;
    if (rest.length > LINE_CHARS_MAX) throw new Error(`a line of more than ${LINE_CHARS_MAX} characters`);
    const lines = rest.split('\n');
    rest = lines.pop()!;
    for (const line of lines) onLine(line);
  };
}
