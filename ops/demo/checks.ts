// The checks of `larder demo --check`, in order. Each returns what it measured or throws what is wrong, and each can fail:
// the bytes are compared with the origin's files, the requests are counted by the origin itself.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fleet as fleetSchema } from '../../protocol/decision.ts';
import { BEAT_MS } from '../../protocol/heartbeat.ts';
import type { FillPlan } from '../../protocol/plan.ts';
import { formatBytes, formatDuration } from '../../protocol/units.ts';
import { issueToken } from '../../runtime/auth.ts';
import { poll } from '../ask.ts';
import type { DemoFleet } from './fleet.ts';
import { APPLIANCES, SITES, type ApplianceId } from './layout.ts';
import {
  allAssets,
  applianceAt,
  assertAppliance,
  assertWhole,
  describeLoss,
  fetchThroughSteering,
  FORGED_URL,
  forgedBeat,
  holdingsOf,
  inParallel,
  must,
  originStats,
  playAnswerFor,
  playFrom,
  post,
  siteIds,
  siteOf,
  withViewer,
} from './probe.ts';
import { fillNow, importTitles, MANIFESTS, plansOf, playSome, TITLES } from './scenario.ts';
import { assertRunWell } from '../follow-run.ts';
import { fetchPiece, PATIENCE_MS, wholeOf, type PlayReport } from './player.ts';

export interface Scene {
  readonly fleet: DemoFleet;
  /** The appliance that a check has killed and what it held; a later check starts it again. */
  killed: { readonly id: ApplianceId; readonly holdings: readonly string[] } | null;
}

export interface Check {
  readonly name: string;
  /** Nothing after it can be made where it fails. */
  readonly fatal: boolean;
  readonly run: (scene: Scene) => Promise<string>;
}

const SILENT = { show: () => undefined, stop: () => undefined };
/** Where a play is disturbed. */
const DISTURBED_SEGMENT = 5;
/** The most that a viewer may wait for a dead pathway, and for one that hangs: once, with room for a busy machine. */
const KILL_LOST_MS_MAX = 2_000;
const FREEZE_LOST_MS_MAX = PATIENCE_MS + 2_000;

export const CHECKS: readonly Check[] = [
  { name: 'origin, fill, steering and three appliances start', fatal: true, run: starts },
  { name: 'three titles are imported from HLS and DASH', fatal: true, run: imports },
  { name: 'a play before the fill is pulled through', fatal: false, run: pullsThrough },
  { name: 'the fill ends and every rendition is verified', fatal: false, run: fills },
  { name: 'every asset is byte-identical through steering and an appliance', fatal: false, run: byteIdentical },
  { name: 'after the fill no segment is asked of the origin', fatal: false, run: sparesOrigin },
  { name: 'a viewer of each prefix is sent to its own site', fatal: false, run: steersByPrefix },
  { name: 'an appliance killed with kill -9 mid-title costs no byte', fatal: false, run: survivesKill },
  { name: 'a restarted appliance serves without refetching', fatal: false, run: servesAfterRestart },
  { name: 'an appliance frozen with SIGSTOP mid-title costs no byte', fatal: false, run: survivesFreeze },
  { name: 'killed steering costs no byte of a running play', fatal: false, run: survivesSteering },
  { name: 'a forged heartbeat is refused', fatal: false, run: refusesForgery },
];

async function starts({ fleet }: Scene): Promise<string> {
  await fleet.start();
  return `${fleet.processes.length} processes, the appliances each with a storekeeper and a worker`;
}

async function imports({ fleet }: Scene): Promise<string> {
  await importTitles(fleet, SILENT);
  const assets = await allAssets(fleet);
  const bytes = assets.reduce((sum, asset) => sum + asset.bytes, 0);
  return `${MANIFESTS.length} manifests, ${assets.length} assets, ${formatBytes(bytes)}; known to ${APPLIANCES.length} appliances that take plays`;
}

async function pullsThrough({ fleet }: Scene): Promise<string> {
  const before = await originStats(fleet);
  const reports = await playSome(fleet);
  for (const report of reports) assertWhole(report);
  const after = await originStats(fleet);
  must(after.requests > before.requests, 'the origin was not asked at all: nothing was pulled through');
  const segments = reports.reduce((sum, report) => sum + report.segments, 0);
  return `${segments} segments of ${reports.length} plays, ${after.requests - before.requests} requests at the origin`;
}

async function fills({ fleet }: Scene): Promise<string> {
  const planned = await plansOf(fleet);
  const ended = await fillNow(fleet, SILENT);
  assertRunWell(ended);
  must(ended.state === 'done', `the run is ${ended.state}`);
  for (const { id } of APPLIANCES) {
    const part = ended.appliances.find((row) => row.appliance === id);
    const plan = planned.find((row) => row.appliance === id);
    must(part !== undefined && plan !== undefined, `${id} took no part in the run`);
    must(part.state === 'done' && part.faults.length === 0, `${id} is ${part.state} with ${part.faults.length} faults`);
    must(part.bytesDone === part.bytesTotal, `${id} verified ${part.bytesDone} of ${part.bytesTotal} bytes`);
    must(plan.add.length > 0, `${id} was planned nothing to fetch: the check would prove nothing`);
    const missing = await missingAfter(fleet, id, plan);
    must(missing.length === 0, `${id} reports the fill done but ${missing.length} are missing, first ${missing[0]}`);
  }
  const bytes = ended.appliances.reduce((sum, part) => sum + part.bytesDone, 0);
  const renditions = ended.appliances.reduce((sum, part) => sum + part.renditionsDone, 0);
  return `${renditions} renditions, ${formatBytes(bytes)} verified against their digests on ${ended.appliances.length} appliances`;
}

/** Inventories ride the heartbeats: a moment is given for the one that names what was filled. */
async function missingAfter(fleet: DemoFleet, id: string, plan: FillPlan): Promise<readonly string[]> {
  let missing: readonly string[] = [];
  await poll(
    async () => {
      const held = new Set(await holdingsOf(fleet, id));
      missing = plan.add.map((item) => item.holding).filter((holding) => !held.has(holding));
      return missing.length === 0 ? true : null;
    },
    { everyMs: 100, signal: AbortSignal.timeout(BEAT_MS * 2) },
  );
  return missing;
}

async function byteIdentical({ fleet }: Scene): Promise<string> {
  const assets = await allAssets(fleet);
  const servedBy = new Map<string, number>();
  let bytes = 0;
  for (const site of siteIds()) {
    await withViewer(site, async (agent) => {
      await inParallel(assets, async (asset) => {
        const { location, body, etag } = await fetchThroughSteering(fleet, agent, asset.path);
        const file = await readFile(join(fleet.media, decodeURIComponent(asset.path)));
        must(body.equals(file), `${location} differs from the origin's file (${body.length} of ${file.length} bytes)`);
        must(etag === asset.etag, `${location} carries ETag ${String(etag)}, but the catalog has ${asset.etag}`);
        const id = applianceAt(fleet, location);
        servedBy.set(id, (servedBy.get(id) ?? 0) + 1);
        bytes += body.length;
      });
    });
  }
  must(!servedBy.has('origin'), `${servedBy.get('origin')} assets were sent to the origin, not to an appliance`);
  const shares = [...servedBy].sort(([a], [b]) => (a < b ? -1 : 1)).map(([id, count]) => `${id} ${count}`);
  return `${assets.length} assets from ${siteIds().length} sites, ${formatBytes(bytes)} compared; ${shares.join(', ')}`;
}

async function sparesOrigin({ fleet }: Scene): Promise<string> {
  const before = await originStats(fleet);
  const reports: PlayReport[] = [];
  for (const site of siteIds())
    for (const title of TITLES) reports.push(await playFrom(fleet, site, title, { quality: 'highest' }));
  for (const report of reports) assertWhole(report);
  const after = await originStats(fleet);
  const asked = Object.entries(after.byPath ?? {}).filter(
    ([path, count]) => count.requests > (before.byPath?.[path]?.requests ?? 0),
  );
  must(asked.length === 0, `the origin was asked for ${asked.length} paths, first ${asked[0]?.[0]}`);
  const segments = reports.reduce((sum, report) => sum + report.segments, 0);
  const bytes = reports.reduce((sum, report) => sum + report.bytes, 0);
  return `${segments} segments, ${formatBytes(bytes)} played whole from both sites, 0 requests at the origin`;
}

async function steersByPrefix({ fleet }: Scene): Promise<string> {
  const found: string[] = [];
  for (const site of siteIds()) {
    await withViewer(site, async (agent) => {
      const answer = await playAnswerFor(fleet, agent, 'harbor');
      const first = answer.pathways[0]!;
      must(first.site === site, `${SITES[site].viewer} is sent to ${first.id} of site ${String(first.site)}`);
      must(answer.client.by === 'prefix', `its site was found by ${answer.client.by}, not by its prefix`);
      must(answer.pathways.length >= 2, 'it was given no second pathway');
      must(
        answer.pathways.at(-1)!.id === 'origin',
        `the last pathway is ${answer.pathways.at(-1)!.id}, not the origin`,
      );
      const { location } = await fetchThroughSteering(fleet, agent, '/harbor/master.m3u8');
      const by = applianceAt(fleet, location);
      must(siteOf(by) === site, `its request was redirected to ${by}`);
      found.push(`${SITES[site].viewer} → ${answer.pathways.map((pathway) => pathway.id).join(', ')}`);
    });
  }
  return found.join('; ');
}

async function survivesKill(scene: Scene): Promise<string> {
  const { fleet } = scene;
  let killed: ApplianceId | null = null;
  const report = await playFrom(fleet, 'north', 'harbor', {
    during: async (segment, pathway) => {
      if (segment !== DISTURBED_SEGMENT) return;
      killed = assertAppliance(pathway);
      scene.killed = { id: killed, holdings: await holdingsOf(fleet, killed) };
      await fleet.process(killed).kill();
      must(fleet.process(killed).state === 'stopped', `${killed} is not dead`);
    },
  });
  return describeLoss(report, killed, KILL_LOST_MS_MAX);
}

async function servesAfterRestart(scene: Scene): Promise<string> {
  const { fleet, killed } = scene;
  must(killed !== null, 'no appliance was killed before');
  const startedMs = performance.now();
  await fleet.process(killed.id).start();
  const readyMs = performance.now() - startedMs;
  const held = new Set(killed.holdings);
  const assets = (await allAssets(fleet)).filter((asset) => held.has(asset.holding));
  must(assets.length > 0, `${killed.id} held nothing when it was killed: the check would prove nothing`);
  const before = await originStats(fleet);
  let bytes = 0;
  await withViewer('north', async (agent) => {
    await inParallel(assets, async (asset) => {
      const body = await fetchPiece(agent, wholeOf(fleet.videoUrl(killed.id) + asset.path));
      const file = await readFile(join(fleet.media, decodeURIComponent(asset.path)));
      must(body.equals(file), `${asset.path} differs after the restart`);
      bytes += body.length;
    });
  });
  const after = await originStats(fleet);
  must(after.requests === before.requests, `the origin was asked ${after.requests - before.requests} times`);
  await fleet.untilAlive(killed.id);
  return `${killed.id} ready in ${formatDuration(readyMs)}; ${assets.length} assets, ${formatBytes(bytes)} served, 0 requests at the origin`;
}

async function survivesFreeze({ fleet }: Scene): Promise<string> {
  let frozen: ApplianceId | null = null;
  try {
    const report = await playFrom(fleet, 'north', 'harbor', {
      during: async (segment, pathway) => {
        if (segment !== DISTURBED_SEGMENT) return;
        frozen = assertAppliance(pathway);
        fleet.process(frozen).freeze();
        must(fleet.process(frozen).state === 'frozen', `${frozen} is not frozen`);
      },
    });
    return describeLoss(report, frozen, FREEZE_LOST_MS_MAX);
  } finally {
    if (frozen !== null) fleet.process(frozen).thaw();
  }
}

async function survivesSteering({ fleet }: Scene): Promise<string> {
  const steering = fleet.process('steering');
  try {
    const report = await playFrom(fleet, 'south', 'harbor', {
      steeringEveryMs: 0,
      during: async (segment) => {
        if (segment !== DISTURBED_SEGMENT) return;
        await steering.kill();
        must(steering.state === 'stopped', 'steering is not dead');
      },
    });
    assertWhole(report);
    must(report.failovers.length === 0, `the play changed its pathway: ${report.failovers[0]?.reason}`);
    must(report.steeringLost > 0, 'the player never missed steering: the check would prove nothing');
    return `${report.segments} segments, ${formatBytes(report.bytes)}; ${report.steeringLost} times steering was asked in vain`;
  } finally {
    await steering.start();
    for (const { id } of APPLIANCES) await fleet.untilAlive(id);
  }
}

async function refusesForgery({ fleet }: Scene): Promise<string> {
  const beat = forgedBeat('north-1');
  const url = `${fleet.urls.steering}/v1/appliances/north-1/heartbeat`;
  const foreignKey = Buffer.alloc(32, 7);
  const own = (id: string): string => issueToken(fleet.fleetKey, { role: 'appliance', id });
  const cases: readonly (readonly [string, string | null, number])[] = [
    ['no token', null, 401],
    ['a word', 'secret', 403],
    ["another fleet's token", issueToken(foreignKey, { role: 'appliance', id: 'north-1' }), 403],
    ["another appliance's token", own('south-1'), 403],
  ];
  for (const [what, token, expected] of cases) {
    const status = await post(url, token, beat);
    must(status === expected, `a heartbeat with ${what} was answered ${status} instead of ${expected}`);
  }
  const { appliances } = await fleet.services.steering('/v1/fleet', fleetSchema);
  const row = appliances.find((candidate) => candidate.id === 'north-1');
  must(row !== undefined && !row.advertise.includes(FORGED_URL), 'the forged address entered the fleet');
  // The same words with the right token are taken: what was refused was the forgery.
  const ghost = await post(`${fleet.urls.steering}/v1/appliances/ghost/heartbeat`, own('ghost'), forgedBeat('ghost'));
  must(ghost === 200, `an honest heartbeat was answered ${ghost}`);
  return `${cases.map(([what, , status]) => `${what} ${status}`).join(', ')}; with its own token 200`;
}
