// The checks of `larder demo --check`, in order. Each returns what it measured or throws what is wrong, and each can fail:
// the bytes are compared with the origin's files, the requests are counted by the origin itself.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Agent, request } from 'undici';
import { assetPage, type CatalogAsset } from '../protocol/catalog.ts';
import { fleet as fleetSchema, playAnswer, type PlayAnswer } from '../protocol/decision.ts';
import { BEAT_MS, heartbeat, type Heartbeat } from '../protocol/heartbeat.ts';
import { holdingOf } from '../protocol/ids.ts';
import type { FillPlan } from '../protocol/plan.ts';
import { formatBytes, formatDuration } from '../protocol/units.ts';
import { issueToken } from '../runtime/auth.ts';
import { poll } from './ask.ts';
import type { DemoFleet } from './demo-fleet.ts';
import { APPLIANCES, SITES, type ApplianceId, type SiteId } from './demo-layout.ts';
import { fillNow, importTitles, MANIFESTS, plansOf, playSome, TITLES } from './demo-story.ts';
import { assertRunWell } from './fill-follow.ts';
import type { OriginStats } from './origin-server.ts';
import { fetchPiece, PATIENCE_MS, play, wholeOf, type PlayReport } from './player.ts';

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
const REQUESTS_AT_ONCE = 8;
/** Where a play is disturbed, and how long it is. */
const DISTURBED_SEGMENT = 5;
const SEGMENTS_PLAYED = 12;

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
  must(
    servedBy.has('origin') === false,
    `${servedBy.get('origin')} assets were sent to the origin, not to an appliance`,
  );
  const shares = [...servedBy].sort().map(([id, count]) => `${id} ${count}`);
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
  return describeLoss(report, killed, 1_000);
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
    return describeLoss(report, frozen, PATIENCE_MS * 2 + 500);
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

// What the checks share.

function must(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(message);
}

const siteIds = (): SiteId[] => Object.keys(SITES) as SiteId[];

function playFrom(
  fleet: DemoFleet,
  site: SiteId,
  title: string,
  more: Partial<Parameters<typeof play>[0]> = {},
): Promise<PlayReport> {
  return play({
    steering: fleet.urls.steering,
    title,
    root: fleet.media,
    from: SITES[site].viewer,
    quality: 'highest',
    ...(more.during === undefined ? {} : { segmentsMax: SEGMENTS_PLAYED }),
    ...more,
  });
}

function assertWhole(report: PlayReport): void {
  must(report.wrong.length === 0, `${report.wrong.length} pieces are wrong, first: ${report.wrong[0]}`);
  must(report.segments > 0 && report.bytes > 0, 'nothing was played');
}

/** One appliance was lost in the middle: every byte right, one fail-over, both sides of it really served. */
function describeLoss(report: PlayReport, lost: ApplianceId | null, lostMsMax: number): string {
  assertWhole(report);
  must(lost !== null, 'the play ended before anything was disturbed');
  const [failover] = report.failovers;
  must(failover !== undefined, `the play never noticed that ${lost} was gone: the check would prove nothing`);
  must(
    failover.from === lost && report.failovers.length === 1,
    `${report.failovers.length} fail-overs, first from ${failover.from}`,
  );
  must(failover.lostMs <= lostMsMax, `the fail-over took ${formatDuration(failover.lostMs)}`);
  const before = report.bytesByPathway[lost] ?? 0;
  const after = failover.to === null ? 0 : (report.bytesByPathway[failover.to] ?? 0);
  must(before > 0 && after > 0, `${lost} served ${before} bytes, ${String(failover.to)} ${after}: not in the middle`);
  return `${report.segments} segments, ${formatBytes(report.bytes)} right; ${lost} → ${String(failover.to)} in ${formatDuration(failover.lostMs)} (${failover.reason})`;
}

function assertAppliance(pathway: string): ApplianceId {
  const found = APPLIANCES.find((row) => row.id === pathway);
  must(found !== undefined, `the best pathway is ${pathway}, no appliance`);
  return found.id;
}

async function withViewer<T>(site: SiteId, work: (agent: Agent) => Promise<T>): Promise<T> {
  const agent = new Agent({ localAddress: SITES[site].viewer, connections: REQUESTS_AT_ONCE });
  try {
    return await work(agent);
  } finally {
    await agent.destroy();
  }
}

async function playAnswerFor(fleet: DemoFleet, agent: Agent, title: string): Promise<PlayAnswer> {
  const body = await fetchPiece(agent, wholeOf(`${fleet.urls.steering}/v1/play/${title}`));
  return playAnswer.parse(JSON.parse(body.toString('utf8')));
}

/** Follows the redirect of `/v1/route` by hand, to see where it leads. */
async function fetchThroughSteering(
  fleet: DemoFleet,
  agent: Agent,
  path: string,
): Promise<{ readonly location: string; readonly body: Buffer; readonly etag: string | null }> {
  const route = await request(`${fleet.urls.steering}/v1/route${path}`, { dispatcher: agent });
  await route.body.dump();
  const location = route.headers['location'];
  must(route.statusCode === 302 && typeof location === 'string', `/v1/route${path} answered ${route.statusCode}`);
  const response = await request(location, { dispatcher: agent });
  const body = Buffer.from(await response.body.arrayBuffer());
  must(response.statusCode === 200, `${location} answered ${response.statusCode}`);
  const etag = response.headers['etag'];
  return { location, body, etag: typeof etag === 'string' ? etag : null };
}

function applianceAt(fleet: DemoFleet, location: string): string {
  const { origin } = new URL(location);
  return APPLIANCES.find(({ id }) => fleet.videoUrl(id) === origin)?.id ?? 'origin';
}

const siteOf = (id: string): string | null => APPLIANCES.find((row) => row.id === id)?.site ?? null;

async function allAssets(fleet: DemoFleet): Promise<(CatalogAsset & { readonly holding: string })[]> {
  const assets: (CatalogAsset & { holding: string })[] = [];
  for (const title of TITLES) {
    let offset: number | null = 0;
    while (offset !== null) {
      const page: { assets: CatalogAsset[]; next: number | null } = await fleet.services.fill(
        `/v1/titles/${title}/assets?offset=${offset}`,
        assetPage,
      );
      assets.push(...page.assets.map((asset) => ({ ...asset, holding: holdingOf(title, asset.rendition) })));
      offset = page.next;
    }
  }
  must(assets.length > 0, 'the catalog has no asset');
  return assets;
}

async function holdingsOf(fleet: DemoFleet, id: string): Promise<readonly string[]> {
  const { appliances } = await fleet.services.steering('/v1/fleet?inventory=1', fleetSchema);
  return appliances.find((row) => row.id === id)?.inventory ?? [];
}

async function originStats(fleet: DemoFleet): Promise<OriginStats> {
  const response = await request(`${fleet.urls.origin}/-/stats?paths=1`);
  return (await response.body.json()) as OriginStats;
}

const FORGED_URL = 'http://127.0.0.9:9';

function forgedBeat(id: string): Heartbeat {
  return heartbeat.parse({
    protocol: 1,
    appliance: id,
    site: 'north',
    incarnation: 'f'.repeat(16),
    seq: 1,
    advertise: [FORGED_URL],
    position: null,
    timeZone: 'UTC',
    fillWindows: [],
    fillRateBitsPerSecond: null,
    state: 'serving',
    health: { level: 'green', causes: [] },
    storeBytes: 1,
    usedBytes: 0,
    pinnedBytes: 0,
    planBytes: 1,
    connections: 0,
    connectionsMax: 1,
    servedBytes: 0,
    servedRequests: 0,
    inventoryRevision: 0,
    inventory: null,
    ordersDone: [],
    version: 'forged',
  });
}

async function post(url: string, token: string | null, body: unknown): Promise<number> {
  const response = await request(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(token === null ? {} : { authorization: `Bearer ${token}` }) },
    body: JSON.stringify(body),
  });
  await response.body.dump();
  return response.statusCode;
}

async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items];
  const worker = async (): Promise<void> => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: REQUESTS_AT_ONCE }, worker));
}
