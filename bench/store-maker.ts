// A process: makes the index of a large volume by the code that keeps one, without a block file. Opening a store reads the
// index and looks at files only where an intent says so, so it cannot tell.

import { pino } from 'pino';
import { blockCount, BLOCK_BYTES } from '../appliance/store/block-file.ts';
import { DiskVolume } from '../appliance/store/disk-volume.ts';
import { systemClock } from '../runtime/clock.ts';
import { tellParent } from '../runtime/process.ts';

export interface StoreSpec {
  readonly directory: string;
  readonly assets: number;
  readonly blocksPerAsset: number;
}

const FLUSH_ASSETS = 5_000;
const FIRST_MS = Date.UTC(2026, 0, 1);

process.on('disconnect', () => process.exit(0));
const spec = JSON.parse(process.env['LARDER_BENCH']!) as StoreSpec;
const log = pino({ level: 'silent' });
const volume = await DiskVolume.open({ number: 0, directory: spec.directory, clock: systemClock, log });
for (let at = 0; at < spec.assets; at += 1) {
  const bytes = spec.blocksPerAsset * BLOCK_BYTES;
  const meta = {
    key: `/titles/film-${Math.floor(at / 100)}/rendition-${at % 100}.mp4`,
    version: `"${at.toString(16).padStart(40, '0')}"`,
    bytes,
    headers: { 'content-type': 'video/mp4', 'cache-control': 'public, max-age=31536000, immutable' },
    generatedAtMs: 0,
    holding: null,
  };
  const entry = volume.create(meta, FIRST_MS + at * 1_000);
  for (let number = 0; number < blockCount(bytes); number += 1) entry.blocks.add(number);
  volume.touch(entry);
  if (at % FLUSH_ASSETS === FLUSH_ASSETS - 1) await volume.flush();
}
await volume.close();
tellParent({ kind: 'ready', blockBytes: BLOCK_BYTES });
process.disconnect();
