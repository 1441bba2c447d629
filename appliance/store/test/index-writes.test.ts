// Writes to the index of a volume: they keep their order, a failed one is made up for, and after a crash the index knows
// every block file.

import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Level } from 'level';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { systemClock } from '../../../runtime/clock.ts';
import { silentLog } from '../../../runtime/log.ts';
import { noise } from '../../test/rig.ts';
import { BLOCK_BYTES, payloadOf } from '../block-file.ts';
import { DiskVolume } from '../disk-volume.ts';
import { IndexWriter } from '../index-writer.ts';
import { blockFiles } from '../layout.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'larder-index-'));
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(root, { recursive: true, force: true });
});

const openVolume = (directory: string): Promise<DiskVolume> =>
  DiskVolume.open({ number: 0, directory, clock: systemClock, log: silentLog });

/** A copy of the store as a crash at this moment would leave it. */
function crashed(directory: string): string {
  cpSync(directory, `${directory}-crashed`, { recursive: true });
  return `${directory}-crashed`;
}

const noSpace = (): Error => Object.assign(new Error('IO error: No space left on device'), { code: 'LEVEL_IO_ERROR' });

const META = {
  ...{ key: '/a', version: '"a"', bytes: BLOCK_BYTES, headers: {} },
  ...{ generatedAtMs: null, holding: null },
};

test('an index write that fails is reported as disk_full, and the next flush writes what it lost', async () => {
  const directory = join(root, 'store');
  const volume = await openVolume(directory);
  const entry = volume.create(META, 1);
  await volume.intend(entry, [0]);
  await volume.write(entry, 0, payloadOf(noise(BLOCK_BYTES)));
  vi.spyOn(Level.prototype, 'batch').mockRejectedValueOnce(noSpace());
  await expect(volume.flush()).rejects.toMatchObject({ code: 'disk_full' });
  await volume.flush();
  const copy = crashed(directory);
  await volume.close();
  const reopened = await openVolume(copy);
  expect([...reopened.entries()].map((found) => found.blocks.has(0))).toEqual([true]);
  await reopened.close();
});

test('a block that is fetched again right after a failed fetch is known to the index after a crash', async () => {
  const directory = join(root, 'store');
  const volume = await openVolume(directory);
  const entry = volume.create(META, 1);
  await volume.intend(entry, [0]);
  const second = volume.intend(entry, [0]);
  volume.abandon(entry, [0]);
  await second;
  await volume.flush();
  const unflushed = vi.spyOn(Level.prototype, 'batch').mockRejectedValue(noSpace());
  await volume.write(entry, 0, payloadOf(noise(BLOCK_BYTES)));
  const copy = crashed(directory);
  unflushed.mockRestore();
  const reopened = await openVolume(copy);
  const indexed = [...reopened.entries()].reduce((sum, found) => sum + found.blocks.count, 0);
  expect([...blockFiles(reopened.directory)]).toHaveLength(indexed);
  expect(indexed).toBe(1);
  await reopened.close();
  await volume.close();
});

test('batches are written one after another, in the order of the calls', async () => {
  // When they overtook each other, an entry that had been removed came back.
  const written: string[][] = [];
  let running = 0;
  const index = {
    batch: async (batch: readonly { readonly key: string }[]) => {
      running += 1;
      expect(running).toBe(1);
      await new Promise((resolve) => setImmediate(resolve));
      written.push(batch.map(({ key }) => key));
      running -= 1;
    },
  };
  const writer = new IndexWriter(index as unknown as Level, 'index');
  const keys = Array.from({ length: 20 }, (_, at) => `k${at}`);
  await Promise.all(keys.map((key) => writer.write([{ type: 'del', key }], { sync: key === 'k7' })));
  expect(written.flat()).toEqual(keys);
});
