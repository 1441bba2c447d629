// Twenty kills under load: storekeeper, worker and supervisor are killed in turn while clients read ranges, and before each kill a
// storekeeper or a worker is stopped for a while, wherever it is, and goes on. A response may break off but never carries a wrong byte, and
// afterwards every film is served whole. `test/kills.sh` makes more of them, with more workers.

import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { pause } from './processes.ts';
import { noise, RunningAppliance, ScriptedOrigin } from './rig.ts';

const MB = 2 ** 20;
const KILLS = Number(process.env['LARDER_KILLS'] ?? 20);
const WORKERS = Number(process.env['LARDER_WORKERS'] ?? 2);
const READERS = 8;
const FILMS = 12;
/** How long the service may be down after a kill. */
const RECOVERY_MS = 20_000;

let origin: ScriptedOrigin;
let appliance: RunningAppliance;
const films = Array.from({ length: FILMS }, (_, at) => noise(2 * MB + at * 1_001, at + 1));

beforeAll(async () => {
  origin = await ScriptedOrigin.start();
  const headers = { 'cache-control': 'max-age=3600' };
  for (const [at, film] of films.entries()) origin.put(`/film-${at}`, film, { headers });
  // Room for about half of the films on disk, for a few in memory and for two blocks that arrive, so that blocks are evicted from all of
  // these during the test, and some arrive elsewhere.
  const flags = ['--store-bytes', '32MiB', '--memory-bytes', '16MiB', '--workers', String(WORKERS)];
  appliance = await RunningAppliance.start({ origin: origin.url, flags });
});

afterAll(async () => {
  await appliance.stop();
  await origin.stop();
});

test(
  `${KILLS} kills of storekeeper, workers and supervisor under load cause no wrong byte`,
  { timeout: KILLS * 15_000 },
  async () => {
    const finished = new AbortController();
    let reads = 0;
    let interrupted = 0;
    const wrong: string[] = [];

    const reader = async (seed: number): Promise<void> => {
      let state = seed;
      const random = (below: number): number => {
        state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
        return state % below;
      };
      while (!finished.signal.aborted) {
        const at = random(FILMS);
        const film = films[at]!;
        const first = random(film.length);
        const last = Math.min(film.length - 1, first + random(MB));
        const outcome = await readRange(`/film-${at}`, first, last, film);
        if (outcome === 'whole') reads += 1;
        else if (outcome === 'interrupted') interrupted += 1;
        else wrong.push(outcome);
      }
    };

    const readers = Array.from({ length: READERS }, (_, seed) => reader(seed + 1));
    for (let kill = 0; kill < KILLS; kill += 1) {
      const before = reads;
      await appliance.until(() => reads >= before + 20, RECOVERY_MS);
      const pids = await appliance.pids();
      const paused = kill % 2 === 0 ? pids.storekeeper : pids.workers[kill % pids.workers.length];
      await pause(paused);
      const role = (['storekeeper', 'worker', 'supervisor'] as const)[kill % 3]!;
      if (role === 'supervisor') {
        const exited = once(appliance.process, 'exit');
        process.kill(pids.supervisor, 'SIGKILL');
        await exited;
        await appliance.start();
      } else {
        const target = role === 'storekeeper' ? pids.storekeeper : pids.workers[kill % pids.workers.length];
        if (target !== undefined && target > 0) process.kill(target, 'SIGKILL');
      }
    }
    finished.abort();
    await Promise.all(readers);
    expect(wrong).toEqual([]);
    expect(reads).toBeGreaterThan(KILLS * 20);
    // Interrupted reads prove that the kills happened under load.
    expect(interrupted).toBeGreaterThan(0);

    for (const [at, film] of films.entries()) {
      await appliance.until(
        async () => (await readRange(`/film-${at}`, 0, film.length - 1, film)) === 'whole',
        RECOVERY_MS,
      );
    }
  },
);

test('afterwards the supervisor holds few descriptors, and no process of a killed supervisor is left', async () => {
  const { supervisor, storekeeper, workers } = await appliance.pids();
  expect(storekeeper).toBeGreaterThan(0);
  expect(workers).toHaveLength(WORKERS);
  await appliance.until(() => readdirSync(`/proc/${supervisor}/fd`).length < 40 + 10 * WORKERS);
  // A process whose parent was killed must exit: only this supervisor and its children use the state directory.
  const strays = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== supervisor)
    .filter((name) => {
      try {
        return (
          readFileSync(`/proc/${name}/environ`, 'utf8').includes(`"state":"${appliance.directory}`) &&
          ![storekeeper, ...workers].includes(Number(name))
        );
      } catch {
        return false;
      }
    });
  expect(strays).toEqual([]);
});

/** `whole`, `interrupted` (refused, reset, short or 5xx), or a sentence about wrong bytes. */
async function readRange(path: string, first: number, last: number, film: Buffer): Promise<string> {
  try {
    const response = await fetch(appliance.url + path, {
      headers: { range: `bytes=${first}-${last}` },
      signal: AbortSignal.timeout(RECOVERY_MS),
    });
    if (response.status >= 500) {
      await response.arrayBuffer();
      return 'interrupted';
    }
    const expected = film.subarray(first, last + 1);
    let at = 0;
    for await (const chunk of response.body!) {
      const got = Buffer.from(chunk as Uint8Array);
      if (!got.equals(expected.subarray(at, at + got.length)))
        return `${path} ${first}-${last}: wrong byte near ${first + at}, status ${response.status}`;
      at += got.length;
    }
    return response.status === 206 && at === expected.length ? 'whole' : 'interrupted';
  } catch (error) {
    return (error as Error).name === 'TimeoutError' ? `${path} ${first}-${last}: hung` : 'interrupted';
  }
}
