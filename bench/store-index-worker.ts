// A worker process that creates the index of a large volume with the code of the appliance, but without block files. That suffices,
// because opening a store reads the index, and files only for blocks with a pending intent.

import { pino } from 'pino';
import { systemClock } from '../runtime/clock.ts';
import { blockCount, BLOCK_BYTES } from '../appliance/store/block-file.ts';
import { DiskVolume } from '../appliance/store/disk-volume.ts';
import { sendToParent } from '../runtime/process.ts';

interface StoreIndexSpec {
  readonly directory: string;
  readonly assets: number;
  readonly blocksPerAsset: number;
}

const FLUSH_ASSETS = 5_000;
const FIRST_MS = Date.UTC(2026, 0, 1);

process.on('disconnect', () => process.exit(0));
const spec = JSON.parse(process.env['LARDER_BENCH']!) as StoreIndexSpec;
const volume = await DiskVolume.open({
  number: 0,
  directory: spec.directory,
  clock: systemClock,
  log: pino({ level: 'silent' }),
});
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
sendToParent({ kind: 'ready', blockBytes: BLOCK_BYTES });
process.disconnect();
