// Bytes that change below a running appliance: in its block files, below the file system, in its index. None is served, and each is counted.

import { execFileSync, spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { Level } from 'level';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { sendRequest } from './http-client.ts';
import { expectFallback } from './metrics.ts';
import { noise, RunningAppliance, ScriptedOrigin } from './rig.ts';

const MB = 2 ** 20;
const HEAD_BYTES = 4_096;
/** Of each kind; test/damage.sh asks for more. */
const FLIPS = Number(process.env['LARDER_FLIPS'] ?? 5);
const isRoot = process.getuid?.() === 0;

let origin: ScriptedOrigin;
let appliance: RunningAppliance;
let mounted: string | null = null;

beforeEach(async () => {
  origin = await ScriptedOrigin.start();
  // Without a memory tier, whose bytes are out of reach of a damaged disk.
  appliance = await RunningAppliance.start({ origin: origin.url, flags: ['--memory-bytes', '0'] });
});

afterEach(async () => {
  if (appliance.process.exitCode === null) await appliance.killAll('SIGKILL');
  if (mounted !== null) execFileSync('umount', ['-l', mounted]);
  mounted = null;
  await appliance.stop();
  await origin.stop();
});

const blockFiles = (): string[] =>
  readdirSync(join(appliance.stores()[0]!, 'blocks'), { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.\d+$/.test(name))
    .map((name) => join(appliance.stores()[0]!, 'blocks', name));

const film = (): Buffer => origin.put('/film', noise(3 * MB + 777), { headers: { 'cache-control': 'max-age=3600' } });

const isServed = async (bytes: Buffer): Promise<boolean> =>
  (await sendRequest(appliance.port, { path: '/film' })).body.equals(bytes);

/** Until the film is stored and both workers have its blocks open. */
async function store(bytes: Buffer): Promise<void> {
  expect(await isServed(bytes)).toBe(true);
  await appliance.until(() => blockFiles().length === 4);
  for (let count = 0; count < 8; count += 1) expect(await isServed(bytes)).toBe(true);
}

/** Inverts one byte of a file, or of a device, in place. */
function flip(path: string, at: number): void {
  const fd = openSync(path, 'r+');
  const byte = Buffer.alloc(1);
  readSync(fd, byte, 0, 1, at);
  byte[0]! ^= 0xff;
  writeSync(fd, byte, 0, 1, at);
  closeSync(fd);
}

/** Asks for a range around a byte, and for the whole film. */
async function expectRight(bytes: Buffer, at: number): Promise<void> {
  const first = Math.max(0, at - 70_000);
  const last = Math.min(bytes.length - 1, at + 70_000);
  const { body } = await sendRequest(appliance.port, { path: '/film', lines: [`Range: bytes=${first}-${last}`] });
  expect(body.equals(bytes.subarray(first, last + 1))).toBe(true);
  expect(await isServed(bytes)).toBe(true);
}

/** A place in the film, another one for each flip. */
const placeOf = (flipped: number, bytes: Buffer): number => ((flipped + 1) * 1_000_003) % (bytes.length - 64);

test('bytes that change in the block files of a running appliance are not served, but fetched again', async () => {
  const bytes = film();
  await store(bytes);
  for (let flipped = 0; flipped < FLIPS; flipped += 1) {
    const at = placeOf(flipped, bytes);
    const file = blockFiles().find((path) => path.endsWith(`.${Math.floor(at / MB)}`));
    flip(file!, HEAD_BYTES + (at % MB));
    await expectRight(bytes, at);
    await appliance.until(() => blockFiles().length === 4);
  }
  await expectFallback(appliance, 'block_damaged_refetch');
});

test.skipIf(!isRoot)('bits that rot below the file system are not served, whenever they are read again', async () => {
  const bytes = film();
  await appliance.killAll('SIGTERM');
  // A disk in a file, so that its bytes can be changed without the file system.
  const [directory] = appliance.stores();
  const image = join(appliance.directory, 'disk');
  rmSync(directory!, { recursive: true });
  mkdirSync(directory!);
  writeFileSync(image, '');
  truncateSync(image, 64 * MB);
  execFileSync('mkfs.ext4', ['-q', image]);
  execFileSync('mount', ['-o', 'loop', image, directory!]);
  mounted = directory!;
  await appliance.start();
  await store(bytes);
  for (let flipped = 0; flipped < FLIPS; flipped += 1) {
    const at = placeOf(flipped, bytes);
    execFileSync('sync', ['-f', directory!]);
    // The film is noise, so that these bytes occur in its blocks alone, of which former ones may be left.
    const pattern = bytes.subarray(at, at + 64);
    const disk = readFileSync(image);
    const places: number[] = [];
    for (let found = disk.indexOf(pattern); found !== -1; found = disk.indexOf(pattern, found + 1)) places.push(found);
    expect(places.length, `byte ${at} of the film is on the disk`).toBeGreaterThan(0);
    for (const place of places) flip(image, place);
    // The page cache lets go of the blocks, so that the next read of each comes from the disk.
    // One may be on its way to be replaced.
    for (const path of blockFiles()) spawnSync('dd', [`if=${path}`, 'iflag=nocache', 'count=0', 'status=none']);
    await expectRight(bytes, at);
    await appliance.until(() => blockFiles().length === 4);
  }
  await expectFallback(appliance, 'block_damaged_refetch');
});

test('a flipped digit in the index does not make a truncated file whole', async () => {
  const bytes = origin.put('/film', noise(5 * MB), { headers: { 'cache-control': 'max-age=3600' } });
  expect(await isServed(bytes)).toBe(true);
  await appliance.until(() => blockFiles().length === 5);
  await appliance.killAll('SIGTERM');
  await editIndex((record) => record.replace('"bytes":5242880', '"bytes":1242880'));
  await appliance.start();
  origin.requests.length = 0;
  for (let count = 0; count < 5; count += 1) {
    const { status, body } = await sendRequest(appliance.port, { path: '/film' });
    expect([status, body.length, body.equals(bytes)]).toEqual([200, bytes.length, true]);
  }
  // The block files say what the record should.
  expect(origin.requests.length).toBe(0);
  expect(appliance.log).toContain('records of the index are damaged');
});

/** Changes records behind the back of the appliance, as a fault of the disk or of the database would. */
async function editIndex(edit: (record: string) => string): Promise<void> {
  const index = new Level(join(appliance.stores()[0]!, 'index'));
  let edited = 0;
  for (const [key, value] of await index.iterator({ gte: 'a', lt: 'b' }).all()) {
    const changed = edit(value);
    if (changed === value) continue;
    edited += 1;
    await index.put(key, changed);
  }
  await index.close();
  expect(edited).toBe(1);
}
