// Second-hit admission at the socket: the first request for an asset is streamed and not stored, the second is stored, the third
// is a hit. A second request during the fetch of the first admits the rest of it.

import { Readable } from 'node:stream';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { systemClock } from '../../../runtime/clock.ts';
import { silentLog } from '../../../runtime/log.ts';
import { BLOCK_BYTES } from '../block-file.ts';
import { INDEX_BYTES_RESERVED } from '../volume-budget.ts';
import { Cache } from '../cache.ts';
import { admissionPolicyOf, type ApplianceConfig } from '../../config.ts';
import { Inflight } from '../../fetch/inflight.ts';
import { Lookup } from '../../fetch/lookup.ts';
import { Miss } from '../../fetch/miss.ts';
import type { Origin } from '../../fetch/origin.ts';
import { bytesOf } from '../../fetch/test/inflight-rig.ts';
import { HeapBuffers } from '../receive-buffer.ts';
import { MemoryVolume } from './memory-volume.ts';
import { noise, RunningAppliance, ScriptedOrigin } from '../../test/rig.ts';

let origin: ScriptedOrigin;
let appliance: RunningAppliance;

beforeAll(async () => {
  origin = await ScriptedOrigin.start();
  appliance = await RunningAppliance.start({ origin: origin.url, flags: ['--admission', 'second-hit'] });
});

afterAll(async () => {
  await appliance?.stop();
  await origin?.stop();
});

async function get(path: string, range?: string): Promise<Buffer> {
  const answer = await fetch(`${appliance.url}${path}`, range === undefined ? {} : { headers: { range } });
  return Buffer.from(await answer.arrayBuffer());
}

const originRequests = (path: string): number => origin.requests.filter((request) => request.path === path).length;

async function metric(name: string): Promise<number> {
  const headers = { authorization: `Bearer ${appliance.token}` };
  const text = await (await fetch(`${appliance.admin}/metrics`, { headers })).text();
  const line = text.split('\n').find((each) => each.startsWith(name));
  return line === undefined ? 0 : Number(line.slice(line.lastIndexOf(' ') + 1));
}

const refused = (): Promise<number> => metric('larder_admission_blocks_total{outcome="refused"}');
const admitted = (): Promise<number> => metric('larder_admission_blocks_total{outcome="admitted"}');
const stored = (): Promise<number> => metric('larder_blocks_stored_total');

test('the first request is streamed unstored, the second is stored, the third is a hit', async () => {
  const body = origin.put('/segment', noise(2 * BLOCK_BYTES + 77));
  expect((await get('/segment')).equals(body)).toBe(true);
  await appliance.until(async () => (await refused()) === 3 && (await metric('larder_assets')) === 0);
  expect([originRequests('/segment'), await stored(), await admitted()]).toEqual([1, 0, 0]);
  expect((await get('/segment')).equals(body)).toBe(true);
  await appliance.until(async () => (await stored()) === 3);
  expect([originRequests('/segment'), await admitted()]).toEqual([2, 3]);
  expect((await get('/segment')).equals(body)).toBe(true);
  expect(originRequests('/segment')).toBe(2);
});

test('a suffix range is not admitted at its first request', async () => {
  const body = origin.put('/suffix', noise(BLOCK_BYTES + 5));
  const before = await stored();
  const refusedBefore = await refused();
  expect((await get('/suffix', 'bytes=-10')).equals(body.subarray(-10))).toBe(true);
  await appliance.until(async () => (await refused()) > refusedBefore);
  expect(await stored()).toBe(before);
});

test('a reader slower than the origin costs it each byte once and stores nothing', async () => {
  const body = origin.put('/slow', noise(7 * BLOCK_BYTES + 1));
  const before = await stored();
  const refusedBefore = await refused();
  const answer = await fetch(`${appliance.url}/slow`);
  const reader = answer.body!.getReader();
  const chunks = [(await reader.read()).value!];
  // All blocks have been fetched and refused while the reader holds the first chunk.
  await appliance.until(async () => (await refused()) === refusedBefore + 8);
  for (let step = await reader.read(); !step.done; step = await reader.read()) chunks.push(step.value);
  expect(Buffer.concat(chunks).equals(body)).toBe(true);
  expect([originRequests('/slow'), await stored()]).toEqual([1, before]);
});

test('a second request during the first fetch joins it, and the blocks still to come are stored', async () => {
  const body = origin.put('/herd', noise(3 * BLOCK_BYTES), { etag: '"herd"' });
  const before = await stored();
  let resume = (): void => undefined;
  const resumed = new Promise<void>((resolve) => {
    resume = resolve;
  });
  origin.intercept = (request, response) => {
    if (request.url !== '/herd' || originRequests('/herd') > 1) return false;
    response.writeHead(206, {
      etag: '"herd"',
      'cache-control': 'max-age=60',
      'content-length': body.length,
      'content-range': `bytes 0-${body.length - 1}/${body.length}`,
    });
    response.write(body.subarray(0, BLOCK_BYTES + 9));
    void resumed.then(() => response.end(body.subarray(BLOCK_BYTES + 9)));
    return true;
  };
  const first = await fetch(`${appliance.url}/herd`);
  await appliance.until(async () => (await refused()) > 0 && (await metric('larder_assets')) > 1);
  const second = await fetch(`${appliance.url}/herd`);
  resume();
  for (const answer of [first, second]) expect(Buffer.from(await answer.arrayBuffer()).equals(body)).toBe(true);
  // Only the block that was refused before the second request is fetched again.
  const ranges = origin.requests.filter(({ path }) => path === '/herd').map(({ headers }) => headers.range);
  expect(ranges.slice(1)).toEqual([`bytes=0-${BLOCK_BYTES - 1}`]);
  await appliance.until(async () => (await stored()) === before + 3);
});

/** A fleet member whose admission refuses by default, and whose origin sends one byte of each fetch and then waits. */
function refusing(spec: {
  readonly pinned?: string;
  readonly planned?: string;
  readonly admits?: () => boolean;
  /** The body of a fetch of bytes `first` to `last`. */
  readonly body?: (first: number, last: number) => Readable;
}) {
  const counters = { add: () => undefined };
  const cache = new Cache({
    ...{ volumes: [new MemoryVolume()], storeBytes: INDEX_BYTES_RESERVED + 2 ** 30 },
    ...{ pinned: new Set(spec.pinned === undefined ? [] : [spec.pinned]) },
    ...{ broadcast: async () => undefined, clock: systemClock, counters, log: silentLog },
  });
  const origin = {
    countBytes: () => undefined,
    fetch: async (_pool: string, { first, last }: { readonly first: number; readonly last: number }) => ({
      ...{ kind: 'bytes', first, last, total: 8 * BLOCK_BYTES },
      body:
        spec.body?.(first, last) ??
        new Readable({
          read(): void {
            if (this.readableDidRead) return;
            this.push(Buffer.alloc(1));
          },
        }),
    }),
  } as unknown as Origin;
  const inflight = new Inflight({
    ...{ cache, origin, clock: systemClock, counters, log: silentLog },
    receive: (bytes) => new HeapBuffers().receive(bytes),
    integrityOf: async () => ({ digests: null, originTag: null }),
    isPlanned: (holding) => holding === spec.planned,
  });
  const meta = { version: '"v"', bytes: 8 * BLOCK_BYTES, headers: {}, generatedAtMs: null };
  const lookup = new Lookup({
    ...{ cache, inflight, origin, reverseProxy: false, clock: systemClock },
    catalogued: async (key) => ({ key, ...meta, holding: `${key.slice(1)}:video` }),
  });
  const admission = { admits: () => spec.admits?.() ?? false, memoryBytes: 0 };
  const miss = new Miss({
    ...{ cache, inflight, lookup, admission, alone: false, clock: systemClock, counters },
    resident: () => null,
  });
  const open = async (key: string) => {
    const opened = await miss.open({
      ...{ key, expected: null, from: 0, to: null },
      ...{
        headers: {},
        directives: [],
        revalidate: null,
        wantsFullBody: false,
        continuation: false,
      },
    });
    if (opened.kind !== 'asset' || opened.body === null) throw new Error('no bytes');
    return { stored: opened.forward!.stored, body: opened.body };
  };
  return { open, cache };
}

test('planned and pinned holdings are stored at the first request', async () => {
  const { open } = refusing({ pinned: 'pinned:video', planned: 'planned:video' });
  const stored = await Promise.all(['/pinned', '/planned', '/other'].map(async (key) => (await open(key)).stored));
  expect(stored).toEqual([true, true, false]);
});

test('readers of unadmitted assets hold at most 256 MiB in memory; beyond that their assets are stored', async () => {
  const { open } = refusing({});
  const readers = await Promise.all(Array.from({ length: 32 }, (_, at) => open(`/${at}`)));
  expect(readers.some(({ stored }) => stored)).toBe(false);
  expect((await open('/32')).stored).toBe(true);
  // Two readers leave after the first chunk.
  for (const { body } of readers.slice(0, 2)) for await (const _ of body) break;
  expect((await open('/33')).stored).toBe(false);
});

test('a slow unadmitted reader gets every byte in order while a later reader has the asset stored', async () => {
  let admits = false;
  let release = (): void => undefined;
  const released = new Promise<void>((resolve) => (release = resolve));
  const { open, cache } = refusing({
    admits: () => admits,
    body: (first, last) =>
      Readable.from(
        (async function* () {
          yield Buffer.alloc(1);
          await released;
          for (let at = first + 1; at <= last; at = (Math.floor(at / BLOCK_BYTES) + 1) * BLOCK_BYTES) {
            const number = Math.floor(at / BLOCK_BYTES);
            yield Buffer.alloc(Math.min(last + 1, (number + 1) * BLOCK_BYTES) - at, number);
          }
        })(),
      ),
  });
  const slow = await open('/film');
  expect(slow.stored).toBe(false);
  const chunks = [bytesOf((await slow.body.next()).value)];
  admits = true;
  await (await open('/film')).body.return();
  release();
  const [entry] = [...cache.entries()];
  while (entry!.blocks.count < 8) await systemClock.sleep(5);
  for await (const piece of slow.body) chunks.push(bytesOf(piece));
  let at = 0;
  for (const chunk of chunks) {
    for (const byte of chunk) if (byte !== Math.floor(at++ / BLOCK_BYTES)) throw new Error(`byte ${at} is ${byte}`);
  }
  // The rest is read from disk.
  expect(at).toBeLessThan(BLOCK_BYTES);
});

test('second-hit is the default in a fleet, lru stand-alone', () => {
  const config = { steering: [], admission: null } as unknown as ApplianceConfig;
  const member = { ...config, steering: ['http://steering'] };
  expect([config, member, { ...member, admission: 's3-fifo' as const }].map(admissionPolicyOf)).toEqual([
    ...['lru', 'second-hit', 's3-fifo'],
  ]);
});
