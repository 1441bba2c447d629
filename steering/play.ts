// A play: from who asks for what to a decision, with everything counted that a play counts. All routes that name
// pathways come through here, so that every dialect gives the same answer.

import { randomBytes } from 'node:crypto';
import type { Title } from '../protocol/catalog.ts';
import type { Consideration, Decision } from '../protocol/decision.ts';
import type { Position } from '../protocol/heartbeat.ts';
import { PROTOCOL_VERSION } from '../protocol/ids.ts';
import { hash32 } from '../protocol/placement.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Metrics } from '../runtime/metrics.ts';
import { decide } from './decide.ts';
import type { Fleet } from './fleet.ts';
import { findFooting, type Client } from './footing.ts';
import type { Footprint } from './footprint.ts';
import type { GeoIp } from './geoip.ts';
import type { METRICS } from './metrics.ts';
import type { Plays } from './plays.ts';
import { jitteredTtlS } from './steering-list.ts';

export const SESSION_CHARS = 16;

export interface PlayDeps {
  readonly fleet: Fleet;
  readonly footprint: Footprint;
  readonly geoip: GeoIp;
  readonly defaultSite: string | null;
  readonly originBase: string;
  readonly ttlMs: number;
  readonly clock: Clock;
  readonly metrics: Metrics<typeof METRICS>;
  readonly plays: Plays;
}

export interface Ask {
  readonly title: Title;
  readonly address: string;
  /** Decision id of a play that was asked before; null begins one. */
  readonly session: string | null;
  readonly pathways: number;
  /** The public route that a new play is counted under; null where nobody plays (explain, HEAD). */
  readonly countAs: 'play' | 'hls' | 'dash' | 'route' | null;
}

export interface Decided {
  readonly decision: Decision;
  readonly considered: readonly Consideration[];
}

export function decidePlay(deps: PlayDeps, ask: Ask): Decided {
  const startedMs = deps.clock.monotonic();
  const session = ask.session ?? newSession();
  const sites = sitePositions(deps);
  const client: Client = findFooting(ask.address, { ...deps, sites });
  const zone = client.footing.site === null ? undefined : deps.footprint.zones.get(client.footing.site);
  const verdict = decide({
    title: ask.title.id,
    session,
    client,
    home: { backups: zone?.backups ?? [], nearestAfterBackups: zone?.nearestAfterBackups ?? true },
    sites,
    contenders: deps.fleet.contenders(ask.title),
    pathways: ask.pathways,
    originBase: deps.originBase,
  });
  // A manifest of a play that was counted already counts nothing again.
  if (ask.session === null && ask.countAs !== null) {
    deps.plays.count(ask.title.id, verdict.pathways[0]!.site);
    deps.metrics.add('larder_steering_plays_total', 1, { route: ask.countAs });
    for (const name of verdict.fallbacks) deps.metrics.add('larder_fallback_total', 1, { name });
  }
  deps.metrics.observe('larder_steering_decision_seconds', (deps.clock.monotonic() - startedMs) / 1000);
  return {
    decision: {
      protocol: PROTOCOL_VERSION,
      id: session,
      at: new Date(deps.clock.now()).toISOString(),
      title: ask.title.id,
      client: client.footing,
      ttlS: jitteredTtlS(deps.ttlMs, hash32(session) / 2 ** 32),
      pathways: [...verdict.pathways],
    },
    considered: verdict.considered,
  };
}

/** The map's word on a site's position counts before its appliances'. */
export function sitePositions({
  fleet,
  footprint,
}: Pick<PlayDeps, 'fleet' | 'footprint'>): Map<string, Position | null> {
  const sites = new Map<string, Position | null>();
  for (const [site, { position }] of fleet.sites()) sites.set(site, position);
  for (const [site, { position }] of footprint.zones) sites.set(site, position ?? sites.get(site) ?? null);
  return sites;
}

/** 16 of a-z 0-9. The remainder favours some letters by 1/7 of their share: 82 bits stay, and nothing is secret. */
const newSession = (): string => Array.from(randomBytes(SESSION_CHARS), (byte) => (byte % 36).toString(36)).join('');
