import { closeSync, mkdtempSync, openSync, readdirSync, readlinkSync, rmSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { silentLog } from '../../../runtime/log.ts';
import { HEAD_BYTES, writeBlock } from '../block-file.ts';
import { DiskVolume } from '../disk-volume.ts';
import { PageCacheRelease } from '../page-cache-release.ts';
import { dropPages, NativeBuffer, WOULD_BLOCK } from '../nonblocking-io.ts';
import type { Entry } from '../volume.ts';
import { noise } from '../../test/rig.ts';

const TMPFS = 0x01021994;
const BYTES = 300_000;

// In memory alone nothing ever leaves it, and descriptors are named on Linux alone.
const onDisk = process.platform === 'linux' && statfsSync(tmpdir()).type !== TMPFS;

describe.runIf(onDisk)('blocks written lately', () => {
  const directory = mkdtempSync(join(tmpdir(), 'larder-new-blocks-'));
  afterAll(() => rmSync(directory, { recursive: true }));
  let now: number;
  let blocks: PageCacheRelease;
  beforeEach(() => {
    now = 0;
    blocks = new PageCacheRelease(dropPages, () => now);
  });

  async function written(name: string): Promise<{ readonly path: string; readonly entry: { touchedMs: number } }> {
    const path = join(directory, name);
    const entry = { touchedMs: 1 };
    const head = { key: name, version: '"1"', assetBytes: BYTES, number: 0, bytes: BYTES, crcs: [] };
    const fd = await writeBlock(path, { ...head, headers: {}, generatedAtMs: null, holding: null }, noise(BYTES));
    blocks.add(path, entry as Entry, fd);
    return { path, entry };
  }

  function inMemory(path: string): boolean {
    const fd = openSync(path, 'r');
    const got = new NativeBuffer(Buffer.allocUnsafeSlow(BYTES)).readNonblocking(
      fd,
      { at: 0, bytes: BYTES },
      HEAD_BYTES,
    );
    closeSync(fd);
    return got !== WOULD_BLOCK;
  }

  test('those that nobody came back for leave memory after a while, the others stay', async () => {
    const once = await written('once');
    const again = await written('again');
    again.entry.touchedMs = 2;
    now += 14_000;
    blocks.look();
    expect(inMemory(once.path)).toBe(true);

    now += 2_000;
    blocks.look();
    await expect.poll(() => inMemory(once.path), { timeout: 10_000 }).toBe(false);
    expect(inMemory(again.path)).toBe(true);
    await expect.poll(() => openFiles(directory), { timeout: 10_000 }).toEqual([]);
  });

  test('of very many the oldest leave early', async () => {
    const gone: number[] = [];
    blocks = new PageCacheRelease(
      async (fd) => void gone.push(fd),
      () => now,
    );
    const fds = Array.from({ length: 600 }, (_, at) => {
      const fd = openSync('/dev/null', 'r');
      blocks.add(String(at), { touchedMs: 1 } as Entry, fd);
      return fd;
    });
    expect(gone).toEqual(fds.slice(0, 600 - 512));
    await new Promise(setImmediate);
    blocks.close();
  });

  test('a block that is removed is held open by nobody', async () => {
    const volume = await DiskVolume.open({ number: 0, directory: join(directory, 'volume'), log: silentLog });
    const common = { version: '"1"', bytes: BYTES, headers: {}, generatedAtMs: null, holding: null };
    const [removed, dropped] = ['removed', 'dropped'].map((key) => volume.create({ key, ...common }, 1));
    for (const entry of [removed!, dropped!]) {
      await volume.intend(entry, [0]);
      await volume.write(entry, 0, noise(BYTES));
    }
    expect(openFiles(join(directory, 'volume/blocks'))).toHaveLength(2);
    await volume.remove(removed!, [0]);
    await volume.drop(dropped!);
    expect(openFiles(join(directory, 'volume/blocks'))).toEqual([]);
    await volume.close();
  });
});

/** Files below a directory that this process has open. */
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
