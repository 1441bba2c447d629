// The fleet as a whole, with real processes: requests at the origin, a filler that is killed, and operation without steering or fill.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Agent, request } from 'undici';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { poll } from '../ops/poll.ts';
import { DemoFleet } from '../ops/demo/fleet.ts';
import { importTitles } from '../ops/demo/scenario.ts';
import { playAnswer } from '../protocol/decision.ts';
import { run as runSchema, type Run } from '../protocol/plan.ts';
import { popularity } from '../protocol/plays.ts';
import { issueToken } from '../runtime/auth.ts';
import { SILENT_PROGRESS } from '../ops/progress.ts';

const SEGMENT = '/harbor/video/360p/seg-00007.m4s';
const WAIT_MS = 60_000;
const POLL_MS = 100;

let fleet: DemoFleet;
const agent = new Agent({ connections: 16 });

beforeAll(async () => {
  // Slow enough to kill an appliance during its fill: 10 MB take ten seconds.
  fleet = await DemoFleet.prepare({ port: null, fillRate: '8Mb/s', ports: 'any', keep: false });
  await fleet.start();
  await importTitles(fleet, SILENT_PROGRESS);
}, 120_000);

afterAll(async () => {
  await agent.close();
  await fleet?.close();
});

interface OriginStats {
  readonly requests: number;
  readonly bytes: number;
}

const originStats = async (): Promise<OriginStats> =>
  (await (await fetch(`${fleet.urls.origin}/-/stats`)).json()) as OriginStats;

async function get(
  url: string,
  headers: Record<string, string> = {},
): Promise<{ readonly status: number; readonly body: Buffer; readonly headers: Record<string, unknown> }> {
  const response = await request(url, { dispatcher: agent, headers });
  return {
    status: response.statusCode,
    body: Buffer.from(await response.body.arrayBuffer()),
    headers: response.headers,
  };
}

async function until<T>(what: string, attempt: () => Promise<T | null>): Promise<T> {
  const result = await poll(attempt, { everyMs: POLL_MS, signal: AbortSignal.timeout(WAIT_MS) });
  if (result === null) throw new Error(`${what}: not within ${WAIT_MS / 1000} s`);
  return result;
}

const fallbackCount = (name: string): Promise<number> =>
  metricOf('north-1', new RegExp(`larder_fallback_total\\{name="${name}"\\} (\\d+)`));

async function metricOf(appliance: 'north-1' | 'north-2' | 'south-1', pattern: RegExp): Promise<number> {
  const token = issueToken(fleet.fleetKey, { role: 'operator', id: 'operator' });
  const { body } = await get(`http://127.0.0.1:${fleet.ports.appliances[appliance].admin}/metrics`, {
    authorization: `Bearer ${token}`,
  });
  return Number(pattern.exec(body.toString())?.[1] ?? 0);
}

const runOf = (id: string): Promise<Run> => fleet.client.fill(`/v1/runs/${id}`, runSchema);

test('a thousand requests for one segment with different queries cause one request at the origin', async () => {
  const expected = await readFile(join(fleet.media, SEGMENT));
  const before = await originStats();
  const answers = await Promise.all(
    Array.from({ length: 1_000 }, (_, at) =>
      get(`${fleet.videoUrl('south-1')}/~session${at}${SEGMENT}?x=${at + 1}&CMCD=bl%3D${at}`),
    ),
  );
  expect(answers.every(({ status, body }) => status === 200 && body.equals(expected))).toBe(true);
  // The request for the statistics may be counted, too.
  expect((await originStats()).requests - before.requests).toBeLessThanOrEqual(2);
});

test('a path outside the catalog is refused without a request to the origin', async () => {
  const before = await originStats();
  const answers = await Promise.all(
    ['/-/stats', '/harbor/none.m4s', '/', '/~abc/etc/passwd'].map((path) => get(fleet.videoUrl('north-1') + path)),
  );
  expect(answers.map(({ status }) => status)).toEqual([404, 404, 404, 404]);
  expect(answers[0]!.body.toString()).toMatch(/^asset_uncatalogued: /);
  expect((await originStats()).requests - before.requests).toBeLessThanOrEqual(1);
});

test('a filler that is killed resumes its fill, and the run ends verified', { timeout: 120_000 }, async () => {
  const started = await fleet.client.fill('/v1/runs', runSchema, {
    method: 'POST',
    body: { site: 'south', title: null, now: true },
  });
  const half = await until('south-1 is in the middle of its fill', async () => {
    const [progress] = (await runOf(started.id)).appliances;
    return progress !== undefined && progress.bytesDone > progress.bytesTotal / 3 ? progress : null;
  });
  await fleet.process('south-1').kill();
  const before = await originStats();
  await fleet.process('south-1').start();
  const ended = await until('the run ends', async () => {
    const run = await runOf(started.id);
    return run.state === 'running' ? null : run;
  });
  expect(ended.state).toBe('done');
  const [progress] = ended.appliances;
  expect(progress).toMatchObject({ state: 'done', bytesDone: progress!.bytesTotal, faults: [] });
  expect(progress!.bytesResumed).toBeGreaterThanOrEqual(half.bytesDone * 0.8);
  // Stored blocks are not fetched again, apart from fetches that the kill interrupted.
  expect((await originStats()).bytes - before.bytes).toBeLessThanOrEqual(
    progress!.bytesTotal - progress!.bytesResumed + 8 * 2 ** 20 * 0.25,
  );
});

test('without steering an appliance keeps serving and counts the fallback, and it sends heartbeats again when steering is back', async () => {
  const before = await fallbackCount('steering_down_serve');
  await fleet.process('steering').kill();
  await until('the appliance counts the fallback', async () =>
    (await fallbackCount('steering_down_serve')) > before ? true : null,
  );
  const expected = await readFile(join(fleet.media, SEGMENT));
  expect((await get(`${fleet.videoUrl('north-1')}/~s${SEGMENT}`)).body.equals(expected)).toBe(true);
  await fleet.process('steering').start();
  for (const id of ['north-1', 'north-2', 'south-1']) await fleet.waitUntilAlive(id);
});

test(
  'without fill the catalog stays in force, and play reports are kept until it is back',
  { timeout: 120_000 },
  async () => {
    const total = async (): Promise<number> =>
      (await fleet.client.fill('/v1/popularity', popularity)).rows.reduce((sum, row) => sum + row.popularity, 0);
    const before = {
      popularity: await total(),
      catalog: await fallbackCount('fill_down_catalog_kept'),
      reports: await fallbackCount('fill_down_reports_kept'),
    };
    await fleet.process('fill').kill();
    const expected = await readFile(join(fleet.media, SEGMENT));
    for (let at = 0; at < 50; at += 1)
      expect((await get(`${fleet.videoUrl('north-1')}/~s${SEGMENT}`)).body.equals(expected)).toBe(true);
    await until('the catalog fallback is counted', async () =>
      (await fallbackCount('fill_down_catalog_kept')) > before.catalog ? true : null,
    );
    await until('reports are kept', async () =>
      (await fallbackCount('fill_down_reports_kept')) > before.reports ? true : null,
    );
    const { pathways } = await fleet.client.steering('/v1/play/harbor', playAnswer);
    expect(pathways.map((pathway) => pathway.id)).toContain('north-1');
    await fleet.process('fill').start();
    await until('the kept reports arrive', async () => ((await total()) > before.popularity ? true : null));
  },
);
