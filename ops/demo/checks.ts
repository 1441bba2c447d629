// The checks of `larder demo --check`, in order. Each returns what it measured, or throws the reason why it failed. None passes
// vacuously: bytes are compared with the origin's files, and requests are counted by the origin itself.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fleet as fleetSchema } from '../../protocol/decision.ts';
import { BEAT_MS } from '../../protocol/heartbeat.ts';
import type { FillPlan } from '../../protocol/plan.ts';
import { formatBytes, formatDuration } from '../../protocol/units.ts';
import { issueToken } from '../../runtime/auth.ts';
import { systemClock } from '../../runtime/clock.ts';
import { forEachAtMost } from '../../runtime/semaphore.ts';
import { assertRunSucceeded } from '../follow-run.ts';
import { poll } from '../poll.ts';
import { SILENT_PROGRESS } from '../progress.ts';
import type { DemoFleet } from './fleet.ts';
import { APPLIANCES, SITES, type ApplianceId } from './layout.ts';
import { fetchMedia, RESPONSE_TIMEOUT_MS, wholeFile, type PlayReport } from './player.ts';
import {
  applianceAt,
  assertPlayIntact,
  assertSingleFailover,
  CONCURRENT_REQUESTS,
  ensure,
  fetchDecision,
  fetchInventory,
  fetchOriginStats,
  fetchThroughSteering,
  FORGED_URL,
  forgedHeartbeat,
  listAssets,
  playFromSite,
  post,
  requireAppliance,
  siteIds,
  siteOfAppliance,
  withViewerAgent,
} from './probe.ts';
import { fetchPlans, fillNow, importTitles, MANIFESTS, playBeforeFill, TITLES } from './scenario.ts';

export interface CheckContext {
  readonly fleet: DemoFleet;
  /** The appliance that one check killed, with its inventory, for the check that starts it again. */
  killed: { readonly id: ApplianceId; readonly holdings: readonly string[] } | null;
}

interface Check {
  readonly name: string;
  /** The checks after it depend on it and are not run if it fails. */
  readonly fatal: boolean;
  readonly run: (context: CheckContext) => Promise<string>;
}

/** The segment during which an appliance or steering fails. */
const FAILURE_SEGMENT = 5;
/** Limits of a fail-over from a dead pathway and from one that hangs, with a margin for a busy machine. */
const KILL_FAILOVER_MS_MAX = 2_000;
const FREEZE_FAILOVER_MS_MAX = RESPONSE_TIMEOUT_MS + 2_000;

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

async function starts({ fleet }: CheckContext): Promise<string> {
  await fleet.start();
  return `${fleet.processes.length} processes`;
}

async function imports({ fleet }: CheckContext): Promise<string> {
  await importTitles(fleet, SILENT_PROGRESS);
  const assets = await listAssets(fleet);
  const bytes = assets.reduce((sum, asset) => sum + asset.bytes, 0);
  return `${MANIFESTS.length} manifests, ${assets.length} assets, ${formatBytes(bytes)}`;
}

async function pullsThrough({ fleet }: CheckContext): Promise<string> {
  const before = await fetchOriginStats(fleet);
  const reports = await playBeforeFill(fleet);
  for (const report of reports) assertPlayIntact(report);
  const after = await fetchOriginStats(fleet);
  ensure(after.requests > before.requests, 'the origin was not asked at all: nothing was pulled through');
  const segments = reports.reduce((sum, report) => sum + report.segments, 0);
  return `${segments} segments of ${reports.length} plays, ${after.requests - before.requests} requests at the origin`;
}

async function fills({ fleet }: CheckContext): Promise<string> {
  const planned = await fetchPlans(fleet);
  const ended = await fillNow(fleet, SILENT_PROGRESS);
  assertRunSucceeded(ended);
  ensure(ended.state === 'done', `the run is ${ended.state}`);
  for (const { id } of APPLIANCES) {
    const part = ended.appliances.find((row) => row.appliance === id);
    const plan = planned.find((row) => row.appliance === id);
    ensure(part !== undefined && plan !== undefined, `${id} took no part in the run`);
    ensure(
      part.state === 'done' && part.faults.length === 0,
      `${id} is ${part.state} with ${part.faults.length} faults`,
    );
    ensure(part.bytesDone === part.bytesTotal, `${id} verified ${part.bytesDone} of ${part.bytesTotal} bytes`);
    ensure(plan.add.length > 0, `${id} was planned nothing to fetch: the check would prove nothing`);
    const missing = await missingHoldings(fleet, id, plan);
    ensure(missing.length === 0, `${id} reports the fill done but ${missing.length} are missing, first ${missing[0]}`);
  }
  const bytes = ended.appliances.reduce((sum, part) => sum + part.bytesDone, 0);
  const renditions = ended.appliances.reduce((sum, part) => sum + part.renditionsDone, 0);
  return `${renditions} renditions, ${formatBytes(bytes)} verified against their digests on ${ended.appliances.length} appliances`;
}

/** An inventory arrives with a heartbeat, so this waits for up to two of them. */
async function missingHoldings(fleet: DemoFleet, id: string, plan: FillPlan): Promise<readonly string[]> {
  let missing: readonly string[] = [];
  await poll(
    async () => {
      const held = new Set(await fetchInventory(fleet, id));
      missing = plan.add.map((item) => item.holding).filter((holding) => !held.has(holding));
      return missing.length === 0 ? true : null;
    },
    { everyMs: 100, signal: AbortSignal.timeout(BEAT_MS * 2) },
  );
  return missing;
}

async function byteIdentical({ fleet }: CheckContext): Promise<string> {
  const assets = await listAssets(fleet);
  let fromOrigin = 0;
  let bytes = 0;
  for (const site of siteIds()) {
    await withViewerAgent(site, async (agent) => {
      await forEachAtMost(CONCURRENT_REQUESTS, assets, async (asset) => {
        const { location, body, etag } = await fetchThroughSteering(fleet, agent, asset.path);
        const file = await readFile(join(fleet.media, decodeURIComponent(asset.path)));
        ensure(
          body.equals(file),
          `${location} differs from the origin's file (${body.length} of ${file.length} bytes)`,
        );
        ensure(etag === asset.etag, `${location} carries ETag ${String(etag)}, but the catalog has ${asset.etag}`);
        if (applianceAt(fleet, location) === 'origin') fromOrigin += 1;
        bytes += body.length;
      });
    });
  }
  ensure(fromOrigin === 0, `${fromOrigin} assets were sent to the origin, not to an appliance`);
  return `${assets.length} assets from ${siteIds().length} sites, ${formatBytes(bytes)} compared`;
}

async function sparesOrigin({ fleet }: CheckContext): Promise<string> {
  const before = await fetchOriginStats(fleet);
  const reports: PlayReport[] = [];
  for (const site of siteIds())
    for (const title of TITLES) reports.push(await playFromSite(fleet, site, title, { quality: 'highest' }));
  for (const report of reports) assertPlayIntact(report);
  const after = await fetchOriginStats(fleet);
  const requested = Object.entries(after.byPath ?? {}).filter(
    ([path, count]) => count.requests > (before.byPath?.[path]?.requests ?? 0),
  );
  ensure(requested.length === 0, `the origin was asked for ${requested.length} paths, first ${requested[0]?.[0]}`);
  const segments = reports.reduce((sum, report) => sum + report.segments, 0);
  const bytes = reports.reduce((sum, report) => sum + report.bytes, 0);
  return `${segments} segments, ${formatBytes(bytes)}, 0 requests at the origin`;
}

async function steersByPrefix({ fleet }: CheckContext): Promise<string> {
  const decisions: string[] = [];
  for (const site of siteIds()) {
    await withViewerAgent(site, async (agent) => {
      const answer = await fetchDecision(fleet, agent, 'harbor');
      const first = answer.pathways[0]!;
      ensure(first.site === site, `${SITES[site].viewer} is sent to ${first.id} of site ${String(first.site)}`);
      ensure(answer.client.by === 'prefix', `its site was found by ${answer.client.by}, not by its prefix`);
      ensure(answer.pathways.length >= 2, 'it was given no second pathway');
      ensure(
        answer.pathways.at(-1)!.id === 'origin',
        `the last pathway is ${answer.pathways.at(-1)!.id}, not the origin`,
      );
      const { location } = await fetchThroughSteering(fleet, agent, '/harbor/master.m3u8');
      const redirectedTo = applianceAt(fleet, location);
      ensure(siteOfAppliance(redirectedTo) === site, `its request was redirected to ${redirectedTo}`);
      decisions.push(`${SITES[site].viewer} → ${first.id}`);
    });
  }
  return decisions.join('; ');
}

async function survivesKill(context: CheckContext): Promise<string> {
  const { fleet } = context;
  let killed: ApplianceId | null = null;
  const report = await playFromSite(fleet, 'north', 'harbor', {
    onSegment: async (segment, pathway) => {
      if (segment !== FAILURE_SEGMENT) return;
      killed = requireAppliance(pathway);
      context.killed = { id: killed, holdings: await fetchInventory(fleet, killed) };
      await fleet.process(killed).kill();
      ensure(fleet.process(killed).state === 'stopped', `${killed} is not dead`);
    },
  });
  return assertSingleFailover(report, killed, KILL_FAILOVER_MS_MAX);
}

async function servesAfterRestart(context: CheckContext): Promise<string> {
  const { fleet, killed } = context;
  ensure(killed !== null, 'no appliance was killed before');
  const startedMs = systemClock.monotonic();
  await fleet.process(killed.id).start();
  const readyMs = systemClock.monotonic() - startedMs;
  const held = new Set(killed.holdings);
  const assets = (await listAssets(fleet)).filter((asset) => held.has(asset.holding));
  ensure(assets.length > 0, `${killed.id} held nothing when it was killed: the check would prove nothing`);
  const before = await fetchOriginStats(fleet);
  let bytes = 0;
  await withViewerAgent('north', async (agent) => {
    await forEachAtMost(CONCURRENT_REQUESTS, assets, async (asset) => {
      const body = await fetchMedia(agent, wholeFile(fleet.videoUrl(killed.id) + asset.path));
      const file = await readFile(join(fleet.media, decodeURIComponent(asset.path)));
      ensure(body.equals(file), `${asset.path} differs after the restart`);
      bytes += body.length;
    });
  });
  const after = await fetchOriginStats(fleet);
  ensure(after.requests === before.requests, `the origin was asked ${after.requests - before.requests} times`);
  await fleet.waitUntilAlive(killed.id);
  return `${killed.id} ready in ${formatDuration(readyMs)}; ${assets.length} assets, ${formatBytes(bytes)} served, 0 requests at the origin`;
}

async function survivesFreeze({ fleet }: CheckContext): Promise<string> {
  let frozen: ApplianceId | null = null;
  try {
    const report = await playFromSite(fleet, 'north', 'harbor', {
      onSegment: async (segment, pathway) => {
        if (segment !== FAILURE_SEGMENT) return;
        frozen = requireAppliance(pathway);
        fleet.process(frozen).freeze();
        ensure(fleet.process(frozen).state === 'frozen', `${frozen} is not frozen`);
      },
    });
    return assertSingleFailover(report, frozen, FREEZE_FAILOVER_MS_MAX);
  } finally {
    if (frozen !== null) fleet.process(frozen).thaw();
  }
}

async function survivesSteering({ fleet }: CheckContext): Promise<string> {
  const steering = fleet.process('steering');
  try {
    const report = await playFromSite(fleet, 'south', 'harbor', {
      steeringIntervalMs: 0,
      onSegment: async (segment) => {
        if (segment !== FAILURE_SEGMENT) return;
        await steering.kill();
        ensure(steering.state === 'stopped', 'steering is not dead');
      },
    });
    assertPlayIntact(report);
    ensure(report.failovers.length === 0, `the play changed its pathway: ${report.failovers[0]?.reason}`);
    ensure(report.steeringFailures > 0, 'no request to steering failed: the check would prove nothing');
    return `${report.segments} segments, ${formatBytes(report.bytes)} intact; ${report.steeringFailures} requests to steering failed`;
  } finally {
    await steering.start();
    for (const { id } of APPLIANCES) await fleet.waitUntilAlive(id);
  }
}

async function refusesForgery({ fleet }: CheckContext): Promise<string> {
  const forged = forgedHeartbeat('north-1');
  const url = `${fleet.urls.steering}/v1/appliances/north-1/heartbeat`;
  const foreignKey = Buffer.alloc(32, 7);
  const own = (id: string): string => issueToken(fleet.fleetKey, { role: 'appliance', id });
  const cases: readonly (readonly [string, string | null, number])[] = [
    ['no token', null, 401],
    ['a malformed token', 'secret', 403],
    ["another fleet's token", issueToken(foreignKey, { role: 'appliance', id: 'north-1' }), 403],
    ["another appliance's token", own('south-1'), 403],
  ];
  for (const [what, token, expected] of cases) {
    const status = await post(url, token, forged);
    ensure(status === expected, `a heartbeat with ${what} was answered ${status} instead of ${expected}`);
  }
  const { appliances } = await fleet.client.steering('/v1/fleet', fleetSchema);
  const row = appliances.find((candidate) => candidate.id === 'north-1');
  ensure(row !== undefined && !row.advertise.includes(FORGED_URL), 'the forged address entered the fleet');
  // The same heartbeat with a valid token is accepted, so the forgery was the reason for the refusals.
  const ghost = await post(
    `${fleet.urls.steering}/v1/appliances/ghost/heartbeat`,
    own('ghost'),
    forgedHeartbeat('ghost'),
  );
  ensure(ghost === 200, `an honest heartbeat was answered ${ghost}`);
  return 'no token 401; malformed and foreign tokens 403; its own token 200';
}
