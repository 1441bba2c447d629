// The scrub of a real volume: what it finds, what it leaves alone, and what it leaves in the page cache.

import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { systemClock } from '../../../runtime/clock.ts';
import { silentLog } from '../../../runtime/log.ts';
import { alignedBuffer, dropPages } from '../../io/nonblocking-io.ts';
import { noise } from '../../test/rig.ts';
import { BLOCK_BYTES, HEAD_BYTES, payloadOf } from '../block-file.ts';
import { DiskVolume } from '../disk-volume.ts';
import { blockPath } from '../layout.ts';
import { Scrub } from '../scrub.ts';
import type { Entry } from '../volume.ts';

const DAY_S = 86_400;
let directory: string;
let volume: DiskVolume;
let entry: Entry;
let damaged: number[];
let checkedBytes: number;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'larder-scrub-'));
  volume = await DiskVolume.open({ number: 0, directory, clock: systemClock, log: silentLog });
  entry = volume.create(
    { key: '/film', version: '"v1"', bytes: 3 * BLOCK_BYTES, headers: {}, generatedAtMs: 7, holding: null },
    1_000,
  );
  await volume.intend(entry, [0, 1, 2]);
  for (const number of [0, 1, 2]) await volume.write(entry, number, payloadOf(noise(BLOCK_BYTES, number + 1)));
  damaged = [];
  checkedBytes = 0;
});

afterEach(async () => {
  await volume.close();
  rmSync(directory, { recursive: true, force: true });
});

const pathOf = (number: number): string => blockPath(directory, entry.id, number);

const pass = (): Promise<void> =>
  new Scrub({
    volume,
    bytes: () => 0,
    rate: Number.POSITIVE_INFINITY,
    onDamaged: async (_, number) => void damaged.push(number),
    onChecked: (bytes) => void (checkedBytes += bytes),
    firstFolder: 77,
    ...{ clock: systemClock, log: silentLog },
  }).pass(alignedBuffer(HEAD_BYTES + BLOCK_BYTES));

test('finds the one block of which a byte has changed', async () => {
  const fd = openSync(pathOf(1), 'r+');
  writeSync(fd, Buffer.from('not noise'), 0, 9, HEAD_BYTES + 500_000);
  closeSync(fd);
  await pass();
  expect(damaged).toEqual([1]);
  // The damaged one was read twice.
  expect(checkedBytes).toBe(4 * (HEAD_BYTES + BLOCK_BYTES));
});

test('finds a whole block that belongs to another asset', async () => {
  const other = volume.create(
    { key: '/other', version: '"v1"', bytes: BLOCK_BYTES, headers: {}, generatedAtMs: 7, holding: null },
    1_000,
  );
  await volume.intend(other, [0]);
  await volume.write(other, 0, payloadOf(noise(BLOCK_BYTES, 9)));
  const stray = blockPath(directory, other.id, 0);
  rmSync(pathOf(2));
  copyFileSync(stray, pathOf(2));
  await pass();
  expect(damaged).toEqual([2]);
});

test('removes a file that the index has not known for an hour, and leaves a younger one', async () => {
  const [old, young] = ['zz.0', 'zz.1'].map((name) => join(directory, 'blocks', '00', name)) as [string, string];
  for (const path of [old, young]) writeFileSync(path, 'of nobody');
  const then = systemClock.now() / 1_000 - DAY_S;
  utimesSync(old, then, then);
  await pass();
  expect([existsSync(old), existsSync(young)]).toEqual([false, true]);
  expect(damaged).toEqual([]);
});

test('leaves nothing of what it read in the page cache', async () => {
  const fd = openSync(pathOf(0), 'r');
  await dropPages(fd);
  closeSync(fd);
  await pass();
  const before = bytesFromDisk();
  expect(readFileSync(pathOf(0)).length).toBe(HEAD_BYTES + BLOCK_BYTES);
  expect(bytesFromDisk() - before).toBeGreaterThanOrEqual(BLOCK_BYTES);
});

/** What this process has read from disks, and not from the page cache. */
const bytesFromDisk = (): number => Number(/read_bytes: (\d+)/.exec(readFileSync('/proc/self/io', 'latin1'))![1]);
