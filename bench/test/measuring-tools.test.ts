// The measuring tools are accurate: the delayed origin has the latency and rate of its settings, and paced clients keep to their rate.

import { Agent, request } from 'undici';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '../../runtime/clock.ts';
import { startClients } from '../client-pool.ts';
import { startDelayedOrigin, type DelayedOrigin } from '../delayed-origin.ts';
import { processTreeUsage } from '../process-usage.ts';
import { Testbed } from '../testbed.ts';

const testbed = new Testbed();
afterAll(() => testbed.close());

async function timed(url: string, dispatcher: Agent): Promise<{ first: number; total: number; bytes: number }> {
  const start = systemClock.monotonic();
  const { body } = await request(url, { dispatcher });
  const first = systemClock.monotonic() - start;
  const bytes = (await body.arrayBuffer()).byteLength;
  return { first, total: systemClock.monotonic() - start, bytes };
}

describe('the delayed origin', () => {
  let origin: DelayedOrigin;
  beforeAll(async () => {
    origin = await startDelayedOrigin(testbed, { roundTripMs: 50, bytesPerSecond: 10e6 });
  });

  it('delays by two round trips on a new connection and by one on a reused one, and keeps to its rate', async () => {
    const dispatcher = new Agent();
    const fresh = await timed(`${origin.url}/1000/a`, dispatcher);
    const reused = await timed(`${origin.url}/2000000/b`, dispatcher);
    await dispatcher.close();
    expect(fresh.first).toBeGreaterThanOrEqual(99);
    expect(reused.first).toBeGreaterThanOrEqual(49);
    expect(reused.bytes).toBe(2_000_000);
    // Timed from the request, because a busy client may see the first byte late. The last chunk is sent without its delay.
    expect(reused.total).toBeGreaterThanOrEqual(49 + ((2_000_000 - 65_536) / 10e6) * 1_000 - 5);
  });

  it('counts connections, requests and bytes', async () => {
    const before = await origin.countsWhenIdle();
    const dispatcher = new Agent();
    await Promise.all([timed(`${origin.url}/1000/c`, dispatcher), timed(`${origin.url}/3000/d`, dispatcher)]);
    await dispatcher.close();
    const after = await origin.countsWhenIdle();
    expect(after.bodyBytes - before.bodyBytes).toBe(4_000);
    expect(after.requests - before.requests).toBe(2);
    expect(after.connections - before.connections).toBe(2);
  });
});

describe('load clients', () => {
  it('that are paced read no faster than their rate', async () => {
    const origin = await startDelayedOrigin(testbed, { roundTripMs: 0, bytesPerSecond: 0 });
    const bytesPerSecond = 1e6;
    const start = systemClock.monotonic();
    const pool = startClients(testbed, {
      url: origin.url,
      mode: 'paced',
      clients: 8,
      path: '/1048576/hot-{}',
      assets: 2,
      assetBytes: 1_048_576,
      rangeBytes: 262_144,
      bytesPerSecond,
    });
    await pool.ready;
    for (;;) {
      const { bodyBytes, responses, errors } = await pool.counts();
      expect(errors).toBe(0);
      // A client may be ahead of its rate by the size of one read.
      expect(bodyBytes).toBeLessThanOrEqual(
        8 * (bytesPerSecond * ((systemClock.monotonic() - start) / 1_000) + 2 * 65_536),
      );
      if (responses >= 16) break;
    }
    await pool.close();
  });

  it('that read once receive the whole asset, and report the time', async () => {
    const origin = await startDelayedOrigin(testbed, { roundTripMs: 20, bytesPerSecond: 0 });
    const done = await startClients(testbed, { url: origin.url, clients: 20, path: '/100000/once' }).ready;
    expect(done).toMatchObject({ bodyBytes: 2_000_000, responses: 20, errors: 0 });
    expect(done.lastMs).toBeGreaterThanOrEqual(39);
  });
});

it('the usage of a process tree includes child processes', () => {
  const usage = processTreeUsage(process.pid);
  expect(usage.processes).toBeGreaterThanOrEqual(2);
  expect(usage.residentBytes).toBeGreaterThan(process.memoryUsage.rss() / 2);
  expect(usage.cpuMs).toBeGreaterThan(0);
});
