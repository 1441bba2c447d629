// The contract of every volume, checked on the disk volume and on its double in memory; then recovery, which only a disk volume
// has.

import { mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { systemClock } from '../../../runtime/clock.ts';
import { silentLog } from '../../../runtime/log.ts';
import { alignedBuffer } from '../../io/nonblocking-io.ts';
import { BLOCK_BYTES, payloadOf } from '../block-file.ts';
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

const openDisk = (): Promise<DiskVolume> =>
  DiskVolume.open({ number: 0, directory, clock: systemClock, log: silentLog });

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
  for (const [number, block] of blocks.entries()) await volume.write(entry, number, payloadOf(block));
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

  test('reads back every block that was written', async () => {
    const blocks = [noise(BLOCK_BYTES, 1), noise(BLOCK_BYTES, 2), noise(17, 3)];
    const entry = await write(volume, '/a', blocks);
    for (const [number, block] of blocks.entries())
      expect((await volume.read(entry, number))?.equals(block)).toBe(true);
    expect([...entry.blocks]).toEqual([0, 1, 2]);
  });

  test('reads null where no block was written', async () => {
    const entry = volume.create(meta('/a', 3 * BLOCK_BYTES), 0);
    expect(await volume.read(entry, 1)).toBeNull();
    expect(entry.blocks.count).toBe(0);
  });

  test('never reuses an id, not even of a removed entry', async () => {
    const first = await write(volume, '/a', [noise(10)]);
    await volume.removeEntry(first);
    const second = await write(volume, '/a', [noise(10, 2)]);
    expect(second.id).not.toBe(first.id);
    expect(await volume.read(first, 0)).toBeNull();
  });

  test('removes the given blocks and no others', async () => {
    const entry = await write(volume, '/a', [noise(BLOCK_BYTES, 1), noise(BLOCK_BYTES, 2), noise(5, 3)]);
    await volume.removeBlocks(entry, [1]);
    expect([...entry.blocks]).toEqual([0, 2]);
    expect(await volume.read(entry, 1)).toBeNull();
    expect(await volume.read(entry, 0)).not.toBeNull();
  });

  test('keeps a payload in pages, whatever is behind it in the last one', async () => {
    for (const bytes of [1, 4_096, 70_000, BLOCK_BYTES]) {
      const memory = alignedBuffer(BLOCK_BYTES).fill('x');
      const payload = noise(bytes);
      payload.copy(memory);
      const entry = volume.create(meta(`/${bytes}`, bytes), 0);
      await volume.intend(entry, [0]);
      await volume.write(entry, 0, { ...payloadOf(memory.subarray(0, bytes)), inPages: true });
      memory.fill('y');
      expect((await volume.read(entry, 0))!.equals(payload)).toBe(true);
    }
  });

  test('discards a block whose entry is removed during the write', async () => {
    const entry = volume.create(meta('/a', 10), 0);
    await volume.intend(entry, [0]);
    const writing = volume.write(entry, 0, payloadOf(noise(10)));
    await volume.removeEntry(entry);
    await writing;
    expect(await volume.read(entry, 0)).toBeNull();
    expect([...volume.entries()]).toEqual([]);
  });

  test('lists and finds an entry until its removal begins', async () => {
    const kept = await write(volume, '/a', [noise(10)]);
    const removed = await write(volume, '/b', [noise(10)]);
    expect([volume.entry(kept.id), volume.entry(removed.id)]).toEqual([kept, removed]);
    const removal = volume.removeEntry(removed);
    expect([volume.entry(kept.id), volume.entry(removed.id)]).toEqual([kept, undefined]);
    await removal;
    expect([...volume.entries()].map((entry) => entry.key)).toEqual(['/a']);
  });
});

describe('a disk volume that is reopened', () => {
  const reopen = async (volume: Volume): Promise<DiskVolume> => {
    await volume.close();
    return openDisk();
  };

  test('has its entries with their blocks, headers and recency', async () => {
    const volume = await openDisk();
    const entry = await write(volume, '/a', [noise(BLOCK_BYTES), noise(9, 2)]);
    entry.touchedMs = 4_242;
    const reopened = await reopen(volume);
    const [found] = [...reopened.entries()];
    expect(found).toMatchObject({
      key: '/a',
      version: '"/a"',
      touchedMs: 4_242,
      headers: { 'content-type': 'video/mp4' },
    });
    expect([...found!.blocks]).toEqual([0, 1]);
    expect((await reopened.read(found!, 1))?.equals(noise(9, 2))).toBe(true);
    await reopened.close();
  });

  test('keeps a complete block whose presence was not yet flushed, and removes an incomplete one', async () => {
    const volume = await openDisk();
    const entry = await write(volume, '/a', [noise(BLOCK_BYTES, 1), noise(BLOCK_BYTES, 2), noise(BLOCK_BYTES, 3)]);
    await volume.flush();
    // The state after a crash between the rename and the flush: an intent and a file, whatever the record says.
    await volume.intend(entry, [0, 1, 2]);
    truncateSync(blockPath(directory, entry.id, 1), 5_000);
    writeFileSync(`${blockPath(directory, entry.id, 2)}.tmp`, 'half');
    const reopened = await reopen(volume);
    const [found] = [...reopened.entries()];
    expect([...found!.blocks]).toEqual([0, 2]);
    expect(
      readdirSync(directory, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.tmp')),
    ).toEqual([]);
    await reopened.close();
  });

  test('does not restore removed blocks and leaves none of their files', async () => {
    const volume = await openDisk();
    const entry = await write(volume, '/a', [noise(BLOCK_BYTES, 1), noise(4, 2)]);
    await volume.removeBlocks(entry, [0]);
    const removed = await write(volume, '/b', [noise(10)]);
    await volume.removeEntry(removed);
    const reopened = await reopen(volume);
    expect([...reopened.entries()].map((found) => [found.key, [...found.blocks]])).toEqual([['/a', [1]]]);
    expect(
      readdirSync(join(directory, 'blocks'), { recursive: true, encoding: 'utf8' }).filter((name) =>
        name.includes('.'),
      ),
    ).toHaveLength(1);
    await reopened.close();
  });

  test('reads the file of another asset as corrupt', async () => {
    const volume = await openDisk();
    const a = await write(volume, '/a', [noise(100, 1)]);
    const b = await write(volume, '/b', [noise(100, 2)]);
    const { copyFileSync } = await import('node:fs');
    copyFileSync(blockPath(directory, b.id, 0), blockPath(directory, a.id, 0));
    await expect(volume.read(a, 0)).rejects.toMatchObject({ code: 'disk_corrupt' });
    await volume.close();
  });

  test('cannot be opened twice at the same time', { timeout: 30_000 }, async () => {
    const volume = await openDisk();
    await expect(openDisk()).rejects.toMatchObject({ code: 'store_locked' });
    await volume.close();
  });
});
