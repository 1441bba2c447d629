// One contract for every volume: the disk, and the memory that stands in for it. What only a disk can do (be opened again)
// is below.

import { mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { silentLog } from '../../../runtime/log.ts';
import { BLOCK_BYTES } from '../block-file.ts';
import { DiskVolume } from '../disk-volume.ts';
import { blockPath } from '../layout.ts';
import type { AssetMeta, Volume } from '../volume.ts';
import { MemoryVolume } from './memory-volume.ts';
import { noise } from '../../test/rig.ts';

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'larder-volume-'));
});

afterEach(() => rmSync(directory, { recursive: true, force: true }));

const openDisk = (): Promise<DiskVolume> => DiskVolume.open({ number: 0, directory, log: silentLog });

const meta = (key: string, bytes: number): AssetMeta => ({
  key,
  version: `"${key}"`,
  bytes,
  headers: { etag: `"${key}"`, 'content-type': 'video/mp4' },
  generatedAtMs: 7,
  holding: null,
});

async function write(volume: Volume, key: string, blocks: readonly Buffer[]): Promise<ReturnType<Volume['create']>> {
  const entry = volume.create(
    meta(
      key,
      blocks.reduce((sum, block) => sum + block.length, 0),
    ),
    1_000,
  );
  await volume.intend(entry, [...blocks.keys()]);
  for (const [number, block] of blocks.entries()) await volume.write(entry, number, block);
  return entry;
}

describe.each([
  ['a disk volume', async (): Promise<Volume> => openDisk()],
  ['a memory volume', async (): Promise<Volume> => new MemoryVolume()],
] as const)('%s', (_, open) => {
  let volume: Volume;
  beforeEach(async () => {
    volume = await open();
  });
  afterEach(() => volume.close());

  test('gives back what was written, block by block', async () => {
    const blocks = [noise(BLOCK_BYTES, 1), noise(BLOCK_BYTES, 2), noise(17, 3)];
    const entry = await write(volume, '/a', blocks);
    for (const [number, block] of blocks.entries())
      expect((await volume.read(entry, number))?.equals(block)).toBe(true);
    expect([...entry.blocks]).toEqual([0, 1, 2]);
  });

  test('has nothing where nothing was written', async () => {
    const entry = volume.create(meta('/a', 3 * BLOCK_BYTES), 0);
    expect(await volume.read(entry, 1)).toBeNull();
    expect(entry.blocks.count).toBe(0);
  });

  test('never gives two entries the same id, dropped ones included', async () => {
    const first = await write(volume, '/a', [noise(10)]);
    await volume.drop(first);
    const second = await write(volume, '/a', [noise(10, 2)]);
    expect(second.id).not.toBe(first.id);
    expect(await volume.read(first, 0)).toBeNull();
  });

  test('removes the blocks that it is told to and no other', async () => {
    const entry = await write(volume, '/a', [noise(BLOCK_BYTES, 1), noise(BLOCK_BYTES, 2), noise(5, 3)]);
    await volume.remove(entry, [1]);
    expect([...entry.blocks]).toEqual([0, 2]);
    expect(await volume.read(entry, 1)).toBeNull();
    expect(await volume.read(entry, 0)).not.toBeNull();
  });

  test('takes no block of an entry that was dropped while it was being written', async () => {
    const entry = volume.create(meta('/a', 10), 0);
    await volume.intend(entry, [0]);
    const writing = volume.write(entry, 0, noise(10));
    await volume.drop(entry);
    await writing;
    expect(await volume.read(entry, 0)).toBeNull();
    expect([...volume.entries()]).toEqual([]);
  });

  test('lists the entries that it has, and finds each until it begins to drop it', async () => {
    const stays = await write(volume, '/a', [noise(10)]);
    const gone = await write(volume, '/b', [noise(10)]);
    expect([volume.entry(stays.id), volume.entry(gone.id)]).toEqual([stays, gone]);
    const dropping = volume.drop(gone);
    expect([volume.entry(stays.id), volume.entry(gone.id)]).toEqual([stays, undefined]);
    await dropping;
    expect([...volume.entries()].map((entry) => entry.key)).toEqual(['/a']);
  });
});

describe('a disk volume that is opened again', () => {
  const reopen = async (volume: Volume): Promise<DiskVolume> => {
    await volume.close();
    return openDisk();
  };

  test('knows its entries, their blocks, headers and recency', async () => {
    const volume = await openDisk();
    const entry = await write(volume, '/a', [noise(BLOCK_BYTES), noise(9, 2)]);
    entry.touchedMs = 4_242;
    const again = await reopen(volume);
    const [found] = [...again.entries()];
    expect(found).toMatchObject({
      key: '/a',
      version: '"/a"',
      touchedMs: 4_242,
      headers: { 'content-type': 'video/mp4' },
    });
    expect([...found!.blocks]).toEqual([0, 1]);
    expect((await again.read(found!, 1))?.equals(noise(9, 2))).toBe(true);
    await again.close();
  });

  test('adopts a block whose presence was not yet written down, and drops half of one', async () => {
    const volume = await openDisk();
    const entry = await write(volume, '/a', [noise(BLOCK_BYTES, 1), noise(BLOCK_BYTES, 2), noise(BLOCK_BYTES, 3)]);
    await volume.flush();
    // As if the process died between the rename and the index: an intent, a file, and an index that says no (or yes).
    await volume.intend(entry, [0, 1, 2]);
    truncateSync(blockPath(directory, entry.id, 1), 5_000);
    writeFileSync(`${blockPath(directory, entry.id, 2)}.tmp`, 'half');
    const again = await reopen(volume);
    const [found] = [...again.entries()];
    expect([...found!.blocks]).toEqual([0, 2]);
    expect(
      readdirSync(directory, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.tmp')),
    ).toEqual([]);
    await again.close();
  });

  test('does not bring back what was removed, and leaves no file of it', async () => {
    const volume = await openDisk();
    const entry = await write(volume, '/a', [noise(BLOCK_BYTES, 1), noise(4, 2)]);
    await volume.remove(entry, [0]);
    const gone = await write(volume, '/b', [noise(10)]);
    await volume.drop(gone);
    const again = await reopen(volume);
    expect([...again.entries()].map((found) => [found.key, [...found.blocks]])).toEqual([['/a', [1]]]);
    expect(
      readdirSync(join(directory, 'blocks'), { recursive: true, encoding: 'utf8' }).filter((name) =>
        name.includes('.'),
      ),
    ).toHaveLength(1);
    await again.close();
  });

  test('refuses a file that belongs to another asset, and one whose bytes are not what was written', async () => {
    const volume = await openDisk();
    const a = await write(volume, '/a', [noise(100, 1)]);
    const b = await write(volume, '/b', [noise(100, 2)]);
    const { copyFileSync } = await import('node:fs');
    copyFileSync(blockPath(directory, b.id, 0), blockPath(directory, a.id, 0));
    await expect(volume.read(a, 0)).rejects.toMatchObject({ code: 'disk_corrupt' });
    await volume.close();
  });

  test('cannot be opened twice at once', { timeout: 30_000 }, async () => {
    const volume = await openDisk();
    await expect(openDisk()).rejects.toMatchObject({ code: 'store_locked' });
    await volume.close();
  });
});
