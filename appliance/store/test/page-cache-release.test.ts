// Written blocks leave a real page cache after a while, unless they were requested again.

import { closeSync, mkdtempSync, openSync, readdirSync, readlinkSync, rmSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { systemClock } from '../../../runtime/clock.ts';
import { silentLog } from '../../../runtime/log.ts';
import { ManualClock } from '../../../runtime/test/manual-clock.ts';
import { HEAD_BYTES, writeBlock } from '../block-file.ts';
import { DiskVolume } from '../disk-volume.ts';
import { PageCacheRelease } from '../page-cache-release.ts';
import { dropPages, NativeBuffer, WOULD_BLOCK } from '../../io/nonblocking-io.ts';
import type { Entry } from '../volume.ts';
import { noise } from '../../test/rig.ts';

const TMPFS = 0x01021994;
const BYTES = 300_000;

// On tmpfs nothing ever leaves memory, and only Linux lists the paths of open descriptors.
const onDisk = process.platform === 'linux' && statfsSync(tmpdir()).type !== TMPFS;

describe.runIf(onDisk)('written blocks', () => {
  const directory = mkdtempSync(join(tmpdir(), 'larder-page-cache-'));
  afterAll(() => rmSync(directory, { recursive: true }));
  let clock: ManualClock;
  let blocks: PageCacheRelease;
  beforeEach(() => {
    clock = new ManualClock();
    blocks = new PageCacheRelease({ clock, dropPages });
  });

  async function writeFile(name: string): Promise<{ readonly path: string; readonly entry: { touchedMs: number } }> {
    const path = join(directory, name);
    const entry = { touchedMs: 1 };
    const head = { key: name, version: '"1"', assetBytes: BYTES, number: 0, bytes: BYTES, crcs: [] };
    const fd = await writeBlock(path, { ...head, headers: {}, generatedAtMs: null, holding: null }, noise(BYTES));
    blocks.add(path, entry as Entry, fd);
    return { path, entry };
  }

  function isCached(path: string): boolean {
    const fd = openSync(path, 'r');
    const outcome = new NativeBuffer(Buffer.allocUnsafeSlow(BYTES)).readNonblocking(
      fd,
      { at: 0, bytes: BYTES },
      HEAD_BYTES,
    );
    closeSync(fd);
    return outcome !== WOULD_BLOCK;
  }

  test('blocks without another request are dropped after a while, the others stay', async () => {
    const once = await writeFile('once');
    const again = await writeFile('again');
    again.entry.touchedMs = 2;
    clock.advance(14_000);
    expect(isCached(once.path)).toBe(true);

    clock.advance(2_000);
    await expect.poll(() => isCached(once.path), { timeout: 10_000 }).toBe(false);
    expect(isCached(again.path)).toBe(true);
    await expect.poll(() => openFiles(directory), { timeout: 10_000 }).toEqual([]);
  });

  test('beyond 512 blocks the oldest are dropped early', async () => {
    const dropped: number[] = [];
    blocks = new PageCacheRelease({ clock, dropPages: async (fd) => void dropped.push(fd) });
    const fds = Array.from({ length: 600 }, (_, at) => {
      const fd = openSync('/dev/null', 'r');
      blocks.add(String(at), { touchedMs: 1 } as Entry, fd);
      return fd;
    });
    expect(dropped).toEqual(fds.slice(0, 600 - 512));
    await new Promise(setImmediate);
    blocks.close();
  });

  test('a removed block is no longer held open', async () => {
    const volume = await DiskVolume.open({
      number: 0,
      directory: join(directory, 'volume'),
      clock: systemClock,
      log: silentLog,
    });
    const common = { version: '"1"', bytes: BYTES, headers: {}, generatedAtMs: null, holding: null };
    const [block, asset] = ['block', 'asset'].map((key) => volume.create({ key, ...common }, 1));
    for (const entry of [block!, asset!]) {
      await volume.intend(entry, [0]);
      await volume.write(entry, 0, noise(BYTES));
    }
    expect(openFiles(join(directory, 'volume/blocks'))).toHaveLength(2);
    await volume.removeBlocks(block!, [0]);
    await volume.removeEntry(asset!);
    expect(openFiles(join(directory, 'volume/blocks'))).toEqual([]);
    await volume.close();
  });
});

/** Files below a directory that this process holds open. */
function openFiles(directory: string): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${fd}`);
      return path.startsWith(directory) ? [path] : [];
    } catch {
      return [];
    }
  });
}
