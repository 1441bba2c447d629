// What the checks of the demo measure with: viewers bound to an address of a prefix, plays and redirects followed by hand,
// the origin's own count, heartbeats that somebody forged.

import { Agent, request } from 'undici';
import { assetPage, type CatalogAsset } from '../../protocol/catalog.ts';
import { fleet as fleetSchema, playAnswer, type PlayAnswer } from '../../protocol/decision.ts';
import { heartbeat, type Heartbeat } from '../../protocol/heartbeat.ts';
import { holdingOf } from '../../protocol/ids.ts';
import { formatBytes, formatDuration } from '../../protocol/units.ts';
import type { DemoFleet } from './fleet.ts';
import { APPLIANCES, SITES, type ApplianceId, type SiteId } from './layout.ts';
import { TITLES } from './scenario.ts';
import type { OriginStats } from '../origin-server.ts';
import { fetchPiece, play, wholeOf, type PlayReport } from './player.ts';

const REQUESTS_AT_ONCE = 8;
/** A disturbed play is this long. */
const SEGMENTS_PLAYED = 12;

export function must(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(message);
}

export const siteIds = (): SiteId[] => Object.keys(SITES) as SiteId[];

export function playFrom(
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

export function assertWhole(report: PlayReport): void {
  must(report.wrong.length === 0, `${report.wrong.length} pieces are wrong, first: ${report.wrong[0]}`);
  must(report.segments > 0 && report.bytes > 0, 'nothing was played');
}

/** One appliance was lost in the middle: every byte right, one fail-over, both sides of it really served. */
export function describeLoss(report: PlayReport, lost: ApplianceId | null, lostMsMax: number): string {
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

export function assertAppliance(pathway: string): ApplianceId {
  const found = APPLIANCES.find((row) => row.id === pathway);
  must(found !== undefined, `the best pathway is ${pathway}, no appliance`);
  return found.id;
}

export async function withViewer<T>(site: SiteId, work: (agent: Agent) => Promise<T>): Promise<T> {
  const agent = new Agent({ localAddress: SITES[site].viewer, connections: REQUESTS_AT_ONCE });
  try {
    return await work(agent);
  } finally {
    await agent.destroy();
  }
}

export async function playAnswerFor(fleet: DemoFleet, agent: Agent, title: string): Promise<PlayAnswer> {
  const body = await fetchPiece(agent, wholeOf(`${fleet.urls.steering}/v1/play/${title}`));
  return playAnswer.parse(JSON.parse(body.toString('utf8')));
}

/** Follows the redirect of `/v1/route` by hand, to see where it leads. */
export async function fetchThroughSteering(
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

export function applianceAt(fleet: DemoFleet, location: string): string {
  const { origin } = new URL(location);
  return APPLIANCES.find(({ id }) => fleet.videoUrl(id) === origin)?.id ?? 'origin';
}

export const siteOf = (id: string): string | null => APPLIANCES.find((row) => row.id === id)?.site ?? null;

export async function allAssets(fleet: DemoFleet): Promise<(CatalogAsset & { readonly holding: string })[]> {
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

export async function holdingsOf(fleet: DemoFleet, id: string): Promise<readonly string[]> {
  const { appliances } = await fleet.services.steering('/v1/fleet?inventory=1', fleetSchema);
  return appliances.find((row) => row.id === id)?.inventory ?? [];
}

export async function originStats(fleet: DemoFleet): Promise<OriginStats> {
  const response = await request(`${fleet.urls.origin}/-/stats?paths=1`);
  return (await response.body.json()) as OriginStats;
}

export const FORGED_URL = 'http://127.0.0.9:9';

export function forgedBeat(id: string): Heartbeat {
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

export async function post(url: string, token: string | null, body: unknown): Promise<number> {
  const response = await request(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(token === null ? {} : { authorization: `Bearer ${token}` }) },
    body: JSON.stringify(body),
  });
  await response.body.dump();
  return response.statusCode;
}

export async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items];
  const worker = async (): Promise<void> => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: REQUESTS_AT_ONCE }, worker));
}
