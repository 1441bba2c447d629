// What the checks of the demo measure with: viewers that connect from an address of a site, plays, redirects, the request count of
// the origin, and forged heartbeats.

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
import { fetchMedia, play, wholeFile, type PlayReport } from './player.ts';

export const CONCURRENT_REQUESTS = 8;
/** Length of a play during which an appliance fails. */
const FAILOVER_SEGMENTS_MAX = 12;

export function ensure(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(message);
}

export const siteIds = (): SiteId[] => Object.keys(SITES) as SiteId[];

export function playFromSite(
  fleet: DemoFleet,
  site: SiteId,
  title: string,
  options: Partial<Parameters<typeof play>[0]> = {},
): Promise<PlayReport> {
  return play({
    steering: fleet.urls.steering,
    title,
    root: fleet.media,
    localAddress: SITES[site].viewer,
    quality: 'highest',
    ...(options.onSegment === undefined ? {} : { segmentsMax: FAILOVER_SEGMENTS_MAX }),
    ...options,
  });
}

export function assertPlayIntact(report: PlayReport): void {
  ensure(report.mismatches.length === 0, `${report.mismatches.length} mismatches, first: ${report.mismatches[0]}`);
  ensure(report.segments > 0 && report.bytes > 0, 'nothing was played');
}

/**
 * Throws unless the play survived the loss of one appliance: every byte intact, one fail-over within `failoverMsMax`, and bytes from
 * both pathways. Returns what was measured.
 */
export function assertSingleFailover(report: PlayReport, lost: ApplianceId | null, failoverMsMax: number): string {
  assertPlayIntact(report);
  ensure(lost !== null, 'the play ended before an appliance failed');
  const [failover] = report.failovers;
  ensure(failover !== undefined, `the play never noticed that ${lost} was gone: the check would prove nothing`);
  ensure(
    failover.from === lost && report.failovers.length === 1,
    `${report.failovers.length} fail-overs, first from ${failover.from}`,
  );
  ensure(failover.waitedMs <= failoverMsMax, `the fail-over took ${formatDuration(failover.waitedMs)}`);
  const before = report.bytesByPathway[lost] ?? 0;
  const after = failover.to === null ? 0 : (report.bytesByPathway[failover.to] ?? 0);
  ensure(before > 0 && after > 0, `${lost} served ${before} bytes, ${String(failover.to)} ${after}: not in the middle`);
  return `${report.segments} segments, ${formatBytes(report.bytes)} intact; ${lost} → ${String(failover.to)} in ${formatDuration(failover.waitedMs)}`;
}

export function requireAppliance(pathway: string): ApplianceId {
  const found = APPLIANCES.find((row) => row.id === pathway);
  ensure(found !== undefined, `the best pathway is ${pathway}, which is no appliance`);
  return found.id;
}

export async function withViewerAgent<T>(site: SiteId, work: (agent: Agent) => Promise<T>): Promise<T> {
  const agent = new Agent({ localAddress: SITES[site].viewer, connections: CONCURRENT_REQUESTS });
  try {
    return await work(agent);
  } finally {
    await agent.destroy();
  }
}

export async function fetchDecision(fleet: DemoFleet, agent: Agent, title: string): Promise<PlayAnswer> {
  const body = await fetchMedia(agent, wholeFile(`${fleet.urls.steering}/v1/play/${title}`));
  return playAnswer.parse(JSON.parse(body.toString('utf8')));
}

/** Fetches an asset by way of steering's `/v1/route` and returns where the redirect led. */
export async function fetchThroughSteering(
  fleet: DemoFleet,
  agent: Agent,
  path: string,
): Promise<{ readonly location: string; readonly body: Buffer; readonly etag: string | null }> {
  const route = await request(`${fleet.urls.steering}/v1/route${path}`, { dispatcher: agent });
  await route.body.dump();
  const location = route.headers['location'];
  ensure(route.statusCode === 302 && typeof location === 'string', `/v1/route${path} answered ${route.statusCode}`);
  const response = await request(location, { dispatcher: agent });
  const body = Buffer.from(await response.body.arrayBuffer());
  ensure(response.statusCode === 200, `${location} answered ${response.statusCode}`);
  const etag = response.headers['etag'];
  return { location, body, etag: typeof etag === 'string' ? etag : null };
}

export function applianceAt(fleet: DemoFleet, location: string): string {
  const { origin } = new URL(location);
  return APPLIANCES.find(({ id }) => fleet.videoUrl(id) === origin)?.id ?? 'origin';
}

export const siteOfAppliance = (id: string): string | null => APPLIANCES.find((row) => row.id === id)?.site ?? null;

export async function listAssets(fleet: DemoFleet): Promise<(CatalogAsset & { readonly holding: string })[]> {
  const assets: (CatalogAsset & { holding: string })[] = [];
  for (const title of TITLES) {
    let offset: number | null = 0;
    while (offset !== null) {
      const page: { assets: CatalogAsset[]; next: number | null } = await fleet.client.fill(
        `/v1/titles/${title}/assets?offset=${offset}`,
        assetPage,
      );
      assets.push(...page.assets.map((asset) => ({ ...asset, holding: holdingOf(title, asset.rendition) })));
      offset = page.next;
    }
  }
  ensure(assets.length > 0, 'the catalog has no asset');
  return assets;
}

export async function fetchInventory(fleet: DemoFleet, id: string): Promise<readonly string[]> {
  const { appliances } = await fleet.client.steering('/v1/fleet?inventory=1', fleetSchema);
  return appliances.find((row) => row.id === id)?.inventory ?? [];
}

export async function fetchOriginStats(fleet: DemoFleet): Promise<OriginStats> {
  const response = await request(`${fleet.urls.origin}/-/stats?paths=1`);
  return (await response.body.json()) as OriginStats;
}

export const FORGED_URL = 'http://127.0.0.9:9';

export function forgedHeartbeat(id: string): Heartbeat {
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
