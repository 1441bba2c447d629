// The instruments measure what they say: the far origin is as far and as slow as told, and paced readers keep their pace.

import { Agent, request } from 'undici';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startAudience } from '../audience.ts';
import { startDistant, type Distant } from '../distant.ts';
import { usageOf } from '../proc.ts';
import { Ring } from '../ring.ts';

const ring = new Ring();
afterAll(() => ring.close());

async function timed(url: string, dispatcher: Agent): Promise<{ first: number; total: number; bytes: number }> {
  const start = performance.now();
  const { body } = await request(url, { dispatcher });
  const first = performance.now() - start;
  const bytes = (await body.arrayBuffer()).byteLength;
  return { first, total: performance.now() - start, bytes };
}

describe('the far origin', () => {
  let distant: Distant;
  beforeAll(async () => {
    distant = await startDistant(ring, { roundTripMs: 50, bytesPerSecond: 10e6 });
  });

  it('takes two round trips on a new connection, one on a known one, and keeps to its rate', async () => {
    const dispatcher = new Agent();
    const fresh = await timed(`${distant.url}/1000/a`, dispatcher);
    const known = await timed(`${distant.url}/2000000/b`, dispatcher);
    await dispatcher.close();
    expect(fresh.first).toBeGreaterThanOrEqual(99);
    expect(known.first).toBeGreaterThanOrEqual(49);
    expect(known.bytes).toBe(2_000_000);
    // From the beginning: a busy reader may see the first byte late. The last piece may leave as soon as the line is free.
    expect(known.total).toBeGreaterThanOrEqual(49 + ((2_000_000 - 65_536) / 10e6) * 1_000 - 5);
  });

  it('counts what it was asked and what it sent', async () => {
    const before = await distant.settled();
    const dispatcher = new Agent();
    await Promise.all([timed(`${distant.url}/1000/c`, dispatcher), timed(`${distant.url}/3000/d`, dispatcher)]);
    await dispatcher.close();
    const after = await distant.settled();
    expect(after.bodyBytes - before.bodyBytes).toBe(4_000);
    expect(after.requests - before.requests).toBe(2);
    expect(after.connections - before.connections).toBe(2);
  });
});

describe('readers', () => {
  it('who are paced read no faster than their rate', async () => {
    const distant = await startDistant(ring, { roundTripMs: 0, bytesPerSecond: 0 });
    const bytesPerSecond = 1e6;
    const start = performance.now();
    const audience = startAudience(ring, {
      url: distant.url,
      manner: 'paced',
      readers: 8,
      path: '/1048576/hot-{}',
      assets: 2,
      assetBytes: 1_048_576,
      rangeBytes: 262_144,
      bytesPerSecond,
    });
    await audience.ready;
    for (;;) {
      const { bodyBytes, answers, errors } = await audience.counts();
      expect(errors).toBe(0);
      // A read may be ahead of its time by what one read takes.
      expect(bodyBytes).toBeLessThanOrEqual(8 * (bytesPerSecond * ((performance.now() - start) / 1_000) + 2 * 65_536));
      if (answers >= 16) break;
    }
    await audience.leave();
  });

  it('who read once have all of it, and say when', async () => {
    const distant = await startDistant(ring, { roundTripMs: 20, bytesPerSecond: 0 });
    const done = await startAudience(ring, { url: distant.url, readers: 20, path: '/100000/once' }).ready;
    expect(done).toMatchObject({ bodyBytes: 2_000_000, answers: 20, errors: 0 });
    expect(done.lastMs).toBeGreaterThanOrEqual(39);
  });
});

it('the usage of a process tree counts its children', () => {
  const usage = usageOf(process.pid);
  expect(usage.processes).toBeGreaterThanOrEqual(2);
  expect(usage.residentBytes).toBeGreaterThan(process.memoryUsage.rss() / 2);
  expect(usage.cpuMs).toBeGreaterThan(0);
});
