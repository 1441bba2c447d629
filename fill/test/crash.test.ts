// The fill process, killed with SIGKILL at inconvenient moments. Whatever it has acknowledged must be there once after the
// restart; whatever it has not must be there whole or not at all.

import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { z } from 'zod';
import { importAccepted, importProgress } from '../../protocol/answers.ts';
import { assetPage, catalogPage } from '../../protocol/catalog.ts';
import { PROTOCOL_VERSION } from '../../protocol/ids.ts';
import { run } from '../../protocol/plan.ts';
import { popularity } from '../../protocol/plays.ts';
import { ensureFleetKey, issueToken, type Role } from '../../runtime/auth.ts';
import { systemClock } from '../../runtime/clock.ts';
import { call } from '../../runtime/client.ts';
import { packageRoot } from '../../runtime/paths.ts';
import { FleetDouble } from './fleet-double.ts';
import { OriginDouble, putFilm } from './origin-double.ts';

const LARDER = join(packageRoot, 'dist', 'larder.js');

let directory: string;
let key: Buffer;
let origin: OriginDouble;
let originUrl: string;
let fleet: FleetDouble;
let steeringUrl: string;
let fill: { readonly child: ChildProcess; readonly url: string };

beforeEach(async () => {
  expect(existsSync(LARDER), 'dist/ is built before the tests: npm run build').toBe(true);
  directory = mkdtempSync(join(tmpdir(), 'larder-crash-'));
  key = ensureFleetKey(join(directory, 'fleet.key'));
  origin = new OriginDouble();
  originUrl = await origin.start();
  putFilm(origin, '/film/');
  fleet = new FleetDouble(key);
  steeringUrl = await fleet.start();
  fill = await start();
});

afterEach(async () => {
  await kill();
  await fleet.stop();
  await origin.stop();
  rmSync(directory, { recursive: true });
});

async function start(): Promise<typeof fill> {
  const flags = { listen: '127.0.0.1:0', state: join(directory, 'state'), origin: originUrl, steering: steeringUrl };
  const more = { 'fleet-key': join(directory, 'fleet.key'), 'half-life': '3650d', 'import-concurrency': '2' };
  const args = Object.entries({ ...flags, ...more }).flatMap(([name, value]) => [`--${name}`, value]);
  const child = spawn(process.execPath, [LARDER, 'fill', 'serve', ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  let log = '';
  const listen = await new Promise<string>((resolve, reject) => {
    child.on('exit', (code) => reject(new Error(`fill ended with ${code}: ${log}`)));
    child.stderr.on('data', (data: Buffer) => {
      log += data.toString();
      const match = /"listen":"([^"]+)"/.exec(log);
      if (match !== null) resolve(match[1]!);
    });
  });
  return { child, url: `http://${listen}` };
}

async function kill(): Promise<void> {
  if (fill.child.exitCode !== null || fill.child.signalCode !== null) return;
  const gone = new Promise((resolve) => fill.child.once('exit', resolve));
  fill.child.kill('SIGKILL');
  await gone;
}

async function killAndStart(): Promise<void> {
  await kill();
  fill = await start();
}

function callFill<S extends z.ZodType>(
  path: string,
  answer: S,
  body?: unknown,
  role: Role = 'operator',
  id: string = role,
): Promise<z.infer<S>> {
  const token = issueToken(key, { role, id });
  return call({ url: fill.url + path, token, answer, ...(body === undefined ? {} : { method: 'POST', body }) });
}

const imported = (id: string): Promise<void> =>
  expect
    .poll(async () => (await callFill(`/v1/imports/${id}`, importProgress)).state, { timeout: 20_000 })
    .toBe('done');
const submit = async (): Promise<string> =>
  (await callFill('/v1/imports', importAccepted, { url: `${originUrl}/film/master.m3u8`, title: null })).id;

test('an accepted import continues after each kill, and the catalog never shows a part of it', async () => {
  // The origin answers a few more requests before each kill and holds the others, so that each kill interrupts the import.
  let answered = 0;
  let answeredMax = 0;
  origin.gate = async () => {
    if (answered >= answeredMax) await new Promise(() => undefined);
    answered += 1;
  };
  const id = await submit();
  for (answeredMax = 1; answeredMax < 13; answeredMax += 3) {
    await expect.poll(() => answered).toBe(answeredMax);
    expect(await callFill('/v1/catalog', catalogPage)).toMatchObject({ revision: 0, titles: [] });
    expect(await callFill(`/v1/imports/${id}`, importProgress)).toMatchObject({ state: 'running' });
    answered = 0;
    await killAndStart();
  }
  answeredMax = Number.POSITIVE_INFINITY;
  await killAndStart();
  await imported(id);
  const { assets } = await callFill('/v1/titles/film/assets', assetPage);
  expect(assets).toHaveLength(13);
});

test('after a kill during an import, the catalog has the old revision or the new one, each complete', async () => {
  await imported(await submit());
  const tagsOf = async (): Promise<string> => {
    const { assets } = await callFill('/v1/titles/film/assets', assetPage);
    return assets.map((asset) => `${asset.path} ${asset.digest.root}`).join('\n');
  };
  let expected = await tagsOf();
  for (let round = 0; round < 6; round += 1) {
    const before = expected;
    putFilm(origin, '/film/', `round ${round}`);
    const id = await submit();
    // Between the start of the import and well after its end.
    await systemClock.sleep(round * 15);
    await killAndStart();
    const seen = await tagsOf();
    await imported(id);
    expected = await tagsOf();
    expect(expected).not.toBe(before);
    expect([before, expected]).toContain(seen);
  }
});

test('each play report counts once, through ten kills while reports are sent', async () => {
  await imported(await submit());
  const report = (seq: number): unknown => ({
    protocol: PROTOCOL_VERSION,
    source: 'north-1',
    site: 'north',
    incarnation: '0123456789abcdef',
    seq,
    from: new Date(0).toISOString(),
    to: new Date().toISOString(),
    served: [{ holding: 'film:video/low', bytes: 1_000_000, requests: 1 }],
    asked: [{ title: 'film', site: 'north', plays: 1 }],
  });
  let seq = 0;
  let kills = 0;
  while (kills < 10) {
    // Like an appliance, the test sends a report again until it is acknowledged.
    const sending = callFill('/v1/plays', z.unknown(), report(seq), 'appliance', 'north-1').then(
      () => true,
      () => false,
    );
    if (seq % 7 === 6) {
      // In turn: after the answer, at once, and while the report is being recorded.
      if (kills % 3 === 0) await sending;
      if (kills % 3 === 2) await systemClock.sleep(kills / 2);
      await kill();
      kills += 1;
      await sending;
      fill = await start();
      await callFill('/v1/plays', z.unknown(), report(seq), 'appliance', 'north-1');
    } else expect(await sending).toBe(true);
    seq += 1;
  }
  const { rows } = await callFill('/v1/popularity', popularity);
  const row = rows.find((r) => r.holding === 'film:video/low' && r.site === 'north')!;
  expect(Math.round((row.popularity * row.bytes) / 1_000_000)).toBe(seq);
});

test('a run and its progress survive a kill, and its appliance is ordered again', async () => {
  await imported(await submit());
  fleet.add('north-1');
  const started = await callFill('/v1/runs', run, { site: null, title: null, now: true });
  await expect.poll(() => fleet.orders.length).toBe(1);
  await killAndStart();
  await expect.poll(() => fleet.orders.length).toBe(2);
  const plan = await fleet.pull(fill.url, 'north-1');
  await fleet.report(fill.url, plan, { bytesDone: 7 });
  await killAndStart();
  expect(await callFill(`/v1/runs/${started.id}`, run)).toMatchObject({ state: 'running', bytesDone: 7 });
  await fleet.complete(fill.url, 'north-1');
  await killAndStart();
  expect(await callFill(`/v1/runs/${started.id}`, run)).toMatchObject({ state: 'done' });
});
