// The files that nginx serves and the appliances cache: sizes around boundaries (empty, one byte, a block and one more), names
// that need escaping, and caching fields that make a cache store, revalidate or bypass. Modification times are fixed, so entity
// tags are the same in every run.

import { mkdirSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { noise } from '../../appliance/test/rig.ts';

const BLOCK = 2 ** 20;
/** In the past, so that Last-Modified is a strong validator (RFC 9110 8.8.2.2) and stored assets stay fresh for a day. */
const MODIFIED_S = Date.UTC(2024, 1, 29, 12, 34, 56) / 1000;
/** In the future, so that no Date of a response lies after it. */
const FUTURE_S = Date.UTC(2099, 11, 31, 23, 59, 59) / 1000;

export interface Asset {
  /** Path below the root, as on disk. */
  readonly name: string;
  readonly body: Buffer;
  /** Null if nginx is configured to send none. */
  readonly etag: string | null;
  readonly modifiedMs: number;
}

function asset(
  name: string,
  bytes: number,
  options: { readonly modifiedS?: number; readonly untagged?: true } = {},
): Asset {
  const modifiedS = options.modifiedS ?? MODIFIED_S;
  return {
    name,
    body: noise(bytes, name.length + bytes),
    // The form in which nginx makes entity tags.
    etag: options.untagged === true ? null : `"${modifiedS.toString(16)}-${bytes.toString(16)}"`,
    modifiedMs: modifiedS * 1000,
  };
}

export const ASSETS: readonly Asset[] = [
  asset('empty.bin', 0),
  asset('one.bin', 1),
  asset('ten.txt', 10),
  asset('page.html', 500),
  asset('small.mp4', 4_000),
  asset('block.mp4', BLOCK),
  asset('over.ts', BLOCK + 1),
  asset('film.mp4', 2 * BLOCK + 123),
  asset('list.m3u8', 800),
  asset('live.mpd', 700),
  asset('untagged.vtt', 900, { untagged: true }),
  asset('future.key', 600, { modifiedS: FUTURE_S }),
  asset('a b+c%41ä.mp4', 300),
  asset('what?#&=.bin', 200),
  asset('home/index.html', 100),
];

/** Requested last on each connection, to see whether it still answers. */
export const SENTINEL = asset('sentinel', 77);

/** nginx directives by file name extension, and what a cache does with such files. */
export const CACHING_BY_EXTENSION: Readonly<Record<string, string>> = {
  // Never stored: every request bypasses the cache.
  m3u8: 'add_header Cache-Control no-store;',
  // Stored, and revalidated each time.
  mpd: 'add_header Cache-Control no-cache;',
  // No strong validator: stored whole or not at all.
  vtt: 'etag off;',
};

export function writeAssets(root: string): void {
  for (const { name, body, modifiedMs } of [...ASSETS, SENTINEL]) {
    const path = join(root, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, body);
    utimesSync(path, modifiedMs / 1000, modifiedMs / 1000);
  }
  mkdirSync(join(root, 'bare'));
}
