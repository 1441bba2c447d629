// Purges under load: films change at the origin and are purged, again and again, while clients read them, fast and slowly, from a memory tier
// that cannot hold them all. During each purge a worker or the storekeeper is stopped for a while, wherever it is, and in each fourth the
// storekeeper is killed. No response mixes two versions, and none that begins after the receipt has a version that the purge removed.
// `test/kills.sh` makes more of them, with more workers.

import { expect, test } from 'vitest';
import { systemClock } from '../../runtime/clock.ts';
import { pause } from './processes.ts';
import { noise, RunningAppliance, ScriptedOrigin } from './rig.ts';

const MB = 2 ** 20;
const PURGES = Number(process.env['LARDER_PURGES'] ?? 12);
const WORKERS = Number(process.env['LARDER_WORKERS'] ?? 2);
const FILMS = 5;
const FILM_BYTES = 2 * MB + 1_001;
const READERS = 10;
/** A slow reader waits this long before it takes what has arrived: beyond the socket's buffer nothing is sent meanwhile. */
const SLOW_MS = 150;
const RECOVERY_MS = 20_000;
const HEADERS = { 'cache-control': 'max-age=3600' };

interface Film {
  readonly path: string;
  /** All versions that the origin has had. */
  readonly versions: Buffer[];
  /** The oldest version that a response may still begin with. */
  oldest: number;
}

test(
  `${PURGES} purges under load, of workers and storekeepers that stop: no version is mixed with another or outlives its purge`,
  { timeout: 60_000 + PURGES * 10_000 },
  async () => {
    const origin = await ScriptedOrigin.start();
    const flags = ['--memory-bytes', '10MiB', '--workers', String(WORKERS)];
    const appliance = await RunningAppliance.start({ origin: origin.url, flags });
    try {
      const films = Array.from({ length: FILMS }, (_, at): Film => ({ path: `/film-${at}`, versions: [], oldest: 0 }));
      let seed = 0;
      const change = ({ path, versions }: Film): void => {
        versions.push(origin.put(path, noise(FILM_BYTES, (seed += 1)), { headers: HEADERS }));
      };
      films.forEach(change);

      const finished = new AbortController();
      const wrong: string[] = [];
      let whole = 0;
      const read = async (reader: number): Promise<void> => {
        for (let count = reader; !finished.signal.aborted; count += 1) {
          const outcome = await readFilm(appliance, films[count % FILMS]!, reader % 2 === 0 ? SLOW_MS : 0);
          if (outcome === 'whole') whole += 1;
          else if (outcome.includes(' ')) wrong.push(outcome);
        }
      };
      const readers = Array.from({ length: READERS }, (_, reader) => read(reader));

      for (let purge = 0; purge < PURGES; purge += 1) {
        const [film, before] = [films[purge % FILMS]!, whole];
        await appliance.until(() => whole >= before + 2 * READERS, RECOVERY_MS);
        change(film);
        const { workers, storekeeper } = await appliance.pids();
        const paused = pause(purge % 3 === 2 ? storekeeper : workers[purge % workers.length]);
        const receipt = purgeUntilDone(appliance, film.path).then(() => {
          film.oldest = film.versions.length - 1;
          // At once: a worker that has not heard of the purge would still answer.
          return Promise.all(readers.map(() => readFilm(appliance, film, 0)));
        });
        if (purge % 4 === 3 && storekeeper > 0) process.kill(storekeeper, 'SIGKILL');
        const [, outcomes] = await Promise.all([paused, receipt]);
        wrong.push(...outcomes.filter((outcome) => outcome.includes(' ')));
      }
      finished.abort();
      await Promise.all(readers);
      expect(wrong).toEqual([]);
    } finally {
      await appliance.stop();
      await origin.stop();
    }
  },
);

/** Resolves at the receipt. While the storekeeper is down there is none; a film that it does not hold is purged. */
function purgeUntilDone(appliance: RunningAppliance, key: string): Promise<void> {
  const { token } = appliance;
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
  return appliance.until(async () => {
    const signal = AbortSignal.timeout(RECOVERY_MS);
    const request = { method: 'POST', headers, body: JSON.stringify({ key }), signal };
    const status = await fetch(`${appliance.admin}/v1/purge`, request).then(
      (answer) => answer.status,
      () => 0,
    );
    return status === 200 || status === 404;
  }, RECOVERY_MS);
}

/** `whole`, `interrupted`, or a sentence about what is wrong. */
async function readFilm(appliance: RunningAppliance, film: Film, waitMs: number): Promise<string> {
  const { oldest } = film;
  const chunks: Buffer[] = [];
  try {
    const response = await fetch(appliance.url + film.path, { signal: AbortSignal.timeout(RECOVERY_MS) });
    if (response.status !== 200) return 'interrupted';
    await systemClock.sleep(waitMs);
    for await (const chunk of response.body!) chunks.push(Buffer.from(chunk as Uint8Array));
  } catch (error) {
    if ((error as Error).name === 'TimeoutError') return `${film.path}: hung`;
  }
  const body = Buffer.concat(chunks);
  const version = film.versions.findLastIndex((each) => body.equals(each.subarray(0, body.length)));
  if (version === -1) return `${film.path}: ${body.length} bytes of no version`;
  if (body.length > 0 && version < oldest)
    return `${film.path}: version ${version} after version ${oldest} was the oldest`;
  return body.length === FILM_BYTES ? 'whole' : 'interrupted';
}
