// What the demo does with its fleet before anybody watches: import the sample titles, play some so that popularity has
// something to go by, plan and fill. The unattended check goes through the same steps.

import { request } from 'undici';
import { planList, publicTitles, type ImportProgress } from '../../protocol/answers.ts';
import { Fault } from '../../protocol/faults.ts';
import { run, type FillPlan, type Run } from '../../protocol/plan.ts';
import { poll } from '../ask.ts';
import { importTitle } from '../verbs/catalog-import.ts';
import type { DemoFleet } from './fleet.ts';
import { APPLIANCES, SITES, type SiteId } from './layout.ts';
import { followRun } from '../follow-run.ts';
import { play, type PlayReport } from './player.ts';
import type { Progress } from '../progress.ts';

/** Every manifest of every sample title, by its path below the origin. */
export const MANIFESTS = [
  { title: 'harbor', path: '/harbor/master.m3u8' },
  { title: 'harbor', path: '/harbor/manifest.mpd' },
  { title: 'meadow', path: '/meadow/master.m3u8' },
  { title: 'meadow', path: '/meadow/manifest.mpd' },
  { title: 'tunnel', path: '/tunnel/master.m3u8' },
] as const;

export const TITLES = ['harbor', 'meadow', 'tunnel'] as const;

/** Who watches what before the first fill, and how many segments of it. */
const EARLY_PLAYS: readonly { readonly title: string; readonly site: SiteId; readonly segments: number }[] = [
  { title: 'harbor', site: 'north', segments: 6 },
  { title: 'harbor', site: 'south', segments: 4 },
  { title: 'meadow', site: 'north', segments: 4 },
  { title: 'tunnel', site: 'south', segments: 3 },
];

const KNOWN_MS = 20_000;
const LOOK_MS = 100;
const RUN_MS = 120_000;

/** Imports all manifests and waits until steering and every appliance know the titles and can be given plays. */
export async function importTitles(fleet: DemoFleet, progress: Progress): Promise<ImportProgress[]> {
  const done: ImportProgress[] = [];
  const signal = AbortSignal.timeout(KNOWN_MS);
  for (const { title, path } of MANIFESTS) {
    const imported = await importTitle(fleet.services, { url: fleet.urls.origin + path, title }, progress, signal);
    if (imported === null) throw new Fault('internal', `${path} was not imported within ${KNOWN_MS / 1000} s`);
    done.push(imported);
  }
  await untilKnown(fleet);
  for (const { id } of APPLIANCES) await fleet.untilAlive(id);
  return done;
}

/** The catalog travels by revision, at each component's own pace. */
async function untilKnown(fleet: DemoFleet): Promise<void> {
  const signal = AbortSignal.timeout(KNOWN_MS);
  const listed = await poll(
    async () => {
      const { titles } = await fleet.services.steering('/v1/titles', publicTitles);
      const complete = MANIFESTS.every(({ title, path }) =>
        titles.some((row) => row.id === title && row.dialects.includes(path.endsWith('.mpd') ? 'dash' : 'hls')),
      );
      return complete ? true : null;
    },
    { everyMs: LOOK_MS, signal },
  );
  if (listed === null) throw new Fault('internal', 'steering has not learned the titles from fill');
  for (const { id } of APPLIANCES) {
    for (const { path } of MANIFESTS) {
      const served = await poll(async () => ((await headStatus(fleet.videoUrl(id) + path)) === 200 ? true : null), {
        everyMs: LOOK_MS,
        signal,
      });
      if (served === null) throw new Fault('internal', `${id} has not learned ${path} from fill`);
    }
  }
}

async function headStatus(url: string): Promise<number> {
  const response = await request(url, { method: 'HEAD', signal: AbortSignal.timeout(5_000) });
  await response.body.dump();
  return response.statusCode;
}

export async function playSome(fleet: DemoFleet): Promise<PlayReport[]> {
  const reports: PlayReport[] = [];
  for (const { title, site, segments } of EARLY_PLAYS) {
    reports.push(
      await play({
        steering: fleet.urls.steering,
        title,
        root: fleet.media,
        from: SITES[site].viewer,
        quality: 'highest',
        segmentsMax: segments,
      }),
    );
  }
  return reports;
}

export async function plansOf(fleet: DemoFleet): Promise<readonly FillPlan[]> {
  return (await fleet.services.fill('/v1/plans', planList)).plans;
}

/** Fills now and follows the run to its end. */
export async function fillNow(fleet: DemoFleet, progress: Progress): Promise<Run> {
  const started = await fleet.services.fill('/v1/runs', run, {
    method: 'POST',
    body: { site: null, title: null, now: true },
  });
  const ended = await followRun(fleet.services, started.id, progress, AbortSignal.timeout(RUN_MS));
  if (ended === null) throw new Fault('internal', `the fill run did not end within ${RUN_MS / 1000} s`);
  return ended;
}
