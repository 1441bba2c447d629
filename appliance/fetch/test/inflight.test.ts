// Upstream fetches: what readers may follow, what is stored, and what is left in the index afterwards.

import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { expect, test } from 'vitest';
import { health } from '../../../protocol/heartbeat.ts';
import { ManualClock } from '../../../runtime/test/manual-clock.ts';
import { BLOCK_BYTES, diskBytesOf } from '../../store/block-file.ts';
import { noise } from '../../test/rig.ts';
import { eventLoopRounds, until } from '../../test/waiting.ts';
import { fetchBlock, inflightRig, metaOf } from './inflight-rig.ts';

test('a reader of a block whose digest is wrong gets digest_mismatch and no byte of it', async () => {
  const body = noise(50_000);
  const digests = [createHash('sha256').update('something else').digest('hex')];
  const { cache, inflight } = inflightRig({ blocks: 4, body, digests });
  const entry = await cache.ensureEntry(metaOf('/a', body.length));
  const pending = inflight.start(entry, { number: 0, lastWanted: 0, pool: 'miss' });
  await expect(pending.follow(0, body.length).next()).rejects.toMatchObject({ code: 'digest_mismatch' });
});

test('the origin is not asked again at once for a block that was wrong, and is believed when it has the right one', async () => {
  const clock = new ManualClock();
  const right = noise(50_000);
  const body = Buffer.from(right);
  body[7]! ^= 1;
  const digests = [createHash('sha256').update(right).digest('hex')];
  const { cache, inflight, requests } = inflightRig({ blocks: 4, body, digests, clock });
  const meta = metaOf('/a', body.length, 'film:video');
  const attempt = async (): Promise<unknown> => {
    const entry = await cache.ensureEntry(meta);
    const pending = inflight.start(entry, { number: 0, lastWanted: 0, pool: 'miss' });
    await pending.done;
    await until(() => entry.fetches === 0);
    return pending.fault?.code ?? null;
  };

  for (let viewer = 0; viewer < 3; viewer += 1) expect(await attempt()).toBe('digest_mismatch');
  expect(requests()).toBe(1);
  expect(inflight.mismatches.healthCause()).toBe("the origin's bytes are not the catalog's: film:video");

  clock.advance(10_000);
  right.copy(body);
  expect(await attempt()).toBeNull();
  expect(requests()).toBe(2);
  expect(inflight.mismatches.healthCause()).toBeNull();
});

test('what is wrong at the origin is said in as many characters as a heartbeat may have', async () => {
  const { cache, inflight } = inflightRig({ blocks: 4, body: noise(100) });
  for (let title = 0; title < 5; title += 1)
    inflight.mismatches.mark(await cache.ensureEntry(metaOf(`/${title}`, 9, `${'t'.repeat(100)}${title}:video`)), 0);
  expect(health.parse({ level: 'yellow', causes: [inflight.mismatches.healthCause()] }).causes[0]).toMatch(
    /^the origin/,
  );
});

test('a version that the catalog has left meanwhile is not marked', async () => {
  const { cache, inflight } = inflightRig({ blocks: 4, body: noise(100) });
  const entry = await cache.ensureEntry(metaOf('/a', 9, 'film:video'));
  await cache.removeEntry(entry);
  inflight.mismatches.mark(entry, 0);
  expect(inflight.mismatches.healthCause()).toBeNull();
});

test('an origin that sends next to nothing loses its connection', async () => {
  const clock = new ManualClock();
  const bytes = new Readable({ read: () => undefined });
  const { cache, inflight } = inflightRig({ blocks: 4, body: noise(50_000), clock, bytes });
  const entry = await cache.ensureEntry(metaOf('/a', 50_000));
  const pending = inflight.start(entry, { number: 0, lastWanted: 0, pool: 'fill' });
  for (let half = 0; half < 2; half += 1) {
    await eventLoopRounds();
    bytes.push(Buffer.alloc(1));
    clock.advance(15_000);
  }
  await pending.done;
  expect(pending.fault).toMatchObject({ code: 'origin_timeout' });
});

test('an asset of which nothing can be stored leaves the index when its fetch ends', async () => {
  const body = noise(50_000);
  const { cache, inflight } = inflightRig({ blocks: 0, body });
  for (const key of ['/a', '/b', '/c']) await fetchBlock(inflight, await cache.ensureEntry(metaOf(key, body.length)));
  await until(() => cache.assets === 0);
});

test('a block that is fetched twice counts once in the held bytes of its rendition', async () => {
  // A viewer and a fill did so, and a rendition with a hole was reported as held.
  const body = noise(2 * BLOCK_BYTES);
  const { cache, inflight } = inflightRig({ blocks: 4, body });
  const entry = await cache.ensureEntry(metaOf('/a', body.length, 'film:video'));
  await fetchBlock(inflight, entry);
  await fetchBlock(inflight, entry);
  expect(cache.heldBytes('film:video')).toBe(BLOCK_BYTES);
  expect(cache.usage()[0]).toMatchObject({ demandBytes: diskBytesOf(BLOCK_BYTES), reservedBytes: 0 });
});
