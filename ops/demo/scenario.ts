// The steps that the demo and its checks share: import the sample titles, play parts of them so that they have a popularity, plan,
// and fill.

import { request } from 'undici';
import { planList, publicTitles } from '../../protocol/answers.ts';
import { Fault } from '../../protocol/faults.ts';
import { run, type FillPlan, type Run } from '../../protocol/plan.ts';
import { importTitle } from '../follow-import.ts';
import { followRun } from '../follow-run.ts';
import { poll } from '../poll.ts';
import type { Progress } from '../progress.ts';
import type { DemoFleet } from './fleet.ts';
import { APPLIANCES, SITES, type SiteId } from './layout.ts';
import { play, type PlayReport } from './player.ts';

/** Every manifest of every sample title, by its path at the origin. */
export const MANIFESTS = [
  { title: 'harbor', path: '/harbor/master.m3u8' },
  { title: 'harbor', path: '/harbor/manifest.mpd' },
  { title: 'meadow', path: '/meadow/master.m3u8' },
  { title: 'meadow', path: '/meadow/manifest.mpd' },
  { title: 'tunnel', path: '/tunnel/master.m3u8' },
] as const;

export const TITLES = ['harbor', 'meadow', 'tunnel'] as const;

/** The plays before the first fill, with the number of segments that each lasts. */
const PLAYS_BEFORE_FILL: readonly { readonly title: string; readonly site: SiteId; readonly segments: number }[] = [
  { title: 'harbor', site: 'north', segments: 6 },
  { title: 'harbor', site: 'south', segments: 4 },
  { title: 'meadow', site: 'north', segments: 4 },
  { title: 'tunnel', site: 'south', segments: 3 },
];

const CATALOG_TIMEOUT_MS = 20_000;
const HEAD_TIMEOUT_MS = 5_000;
const POLL_MS = 100;
const RUN_TIMEOUT_MS = 120_000;

/** Imports every manifest, then waits until steering and all appliances have the catalog and the appliances receive plays. */
export async function importTitles(fleet: DemoFleet, progress: Progress): Promise<void> {
  const signal = AbortSignal.timeout(CATALOG_TIMEOUT_MS);
  for (const { title, path } of MANIFESTS) {
    const imported = await importTitle(fleet.client, { url: fleet.urls.origin + path, title }, progress, signal);
    if (imported === null)
      throw new Fault('internal', `${path} was not imported within ${CATALOG_TIMEOUT_MS / 1000} s`);
  }
  await waitForCatalog(fleet);
  for (const { id } of APPLIANCES) await fleet.waitUntilAlive(id);
}

/** Steering and each appliance pull the catalog from fill at intervals of their own. */
async function waitForCatalog(fleet: DemoFleet): Promise<void> {
  const signal = AbortSignal.timeout(CATALOG_TIMEOUT_MS);
  const listed = await poll(async () => ((await steeringHasCatalog(fleet)) ? true : null), {
    everyMs: POLL_MS,
    signal,
  });
  if (listed === null) throw new Fault('internal', 'steering has not learned the titles from fill');
  for (const { id } of APPLIANCES) {
    for (const { path } of MANIFESTS) {
      const served = await poll(async () => ((await headStatus(fleet.videoUrl(id) + path)) === 200 ? true : null), {
        everyMs: POLL_MS,
        signal,
      });
      if (served === null) throw new Fault('internal', `${id} has not learned ${path} from fill`);
    }
  }
}

async function steeringHasCatalog(fleet: DemoFleet): Promise<boolean> {
  const { titles } = await fleet.client.steering('/v1/titles', publicTitles);
  return MANIFESTS.every(({ title, path }) =>
    titles.some((row) => row.id === title && row.dialects.includes(path.endsWith('.mpd') ? 'dash' : 'hls')),
  );
}

async function headStatus(url: string): Promise<number> {
  const response = await request(url, { method: 'HEAD', signal: AbortSignal.timeout(HEAD_TIMEOUT_MS) });
  await response.body.dump();
  return response.statusCode;
}

export async function playBeforeFill(fleet: DemoFleet): Promise<PlayReport[]> {
  const reports: PlayReport[] = [];
  for (const { title, site, segments } of PLAYS_BEFORE_FILL) {
    reports.push(
      await play({
        steering: fleet.urls.steering,
        title,
        root: fleet.media,
        localAddress: SITES[site].viewer,
        quality: 'highest',
        segmentsMax: segments,
      }),
    );
  }
  return reports;
}

export async function fetchPlans(fleet: DemoFleet): Promise<readonly FillPlan[]> {
  return (await fleet.client.fill('/v1/plans', planList)).plans;
}

/** Starts a fill outside the windows and follows it to its end. */
export async function fillNow(fleet: DemoFleet, progress: Progress): Promise<Run> {
  const started = await fleet.client.fill('/v1/runs', run, {
    method: 'POST',
    body: { site: null, title: null, now: true },
  });
  const ended = await followRun(fleet.client, started.id, progress, AbortSignal.timeout(RUN_TIMEOUT_MS));
  if (ended === null) throw new Fault('internal', `the fill run did not end within ${RUN_TIMEOUT_MS / 1000} s`);
  return ended;
}
