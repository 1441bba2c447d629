// The files that both sides serve: sizes around what is special (nothing, one byte, a block more or less), names that need
// escaping, and origins' habits that make a cache keep, ask again or pass. Times of change are fixed, so that entity tags
// are the same in every run.

import { mkdirSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { noise } from '../../appliance/test/rig.ts';

const BLOCK = 2 ** 20;
/** Of the past, so that a date is a strong validator (RFC 9110 8.8.2.2) and what is kept stays fresh for a day. */
const CHANGED_S = Date.UTC(2024, 1, 29, 12, 34, 56) / 1000;
/** Of the future: no answer's Date lies after it. */
const TO_COME_S = Date.UTC(2099, 11, 31, 23, 59, 59) / 1000;

export interface Asset {
  /** Below the root, as on disk. */
  readonly name: string;
  readonly body: Buffer;
  /** Null where nginx is told to send none. */
  readonly etag: string | null;
  readonly modifiedMs: number;
}

function asset(
  name: string,
  bytes: number,
  options: { readonly changedS?: number; readonly untagged?: true } = {},
): Asset {
  const changedS = options.changedS ?? CHANGED_S;
  return {
    name,
    body: noise(bytes, name.length + bytes),
    // As nginx makes it.
    etag: options.untagged === true ? null : `"${changedS.toString(16)}-${bytes.toString(16)}"`,
    modifiedMs: changedS * 1000,
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
  asset('future.key', 600, { changedS: TO_COME_S }),
  asset('a b+c%41ä.mp4', 300),
  asset('what?#&=.bin', 200),
  asset('home/index.html', 100),
];

/** What the connection is asked for at its end, to see whether it still answers. */
export const SENTINEL = asset('sentinel', 77);

/** What nginx is told of files by their ending, and what a cache makes of it. */
export const HABITS: Readonly<Record<string, string>> = {
  // Never kept: every request passes.
  m3u8: 'add_header Cache-Control no-store;',
  // Kept, and asked for again each time.
  mpd: 'add_header Cache-Control no-cache;',
  // Without a strong validator: kept whole or not at all.
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
