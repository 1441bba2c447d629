// A play: from who asks for what to a decision, with everything counted that a play counts. All routes that name
// pathways come through here, so that every dialect gives the same answer, and an explanation of the past too.

import { randomBytes } from 'node:crypto';
import type { Title } from '../protocol/catalog.ts';
import type { Consideration, Decision } from '../protocol/decision.ts';
import { PROTOCOL_VERSION } from '../protocol/ids.ts';
import { hash32 } from '../protocol/hash.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Metrics } from '../runtime/metrics.ts';
import { decide, type Contender, type Verdict } from './decide.ts';
import type { Fleet } from './fleet.ts';
import { findFooting, type Ground } from './client-location.ts';
import type { Footprint } from './footprint.ts';
import type { GeoIp } from './geoip.ts';
import type { METRICS } from './metrics.ts';
import type { Plays } from './plays.ts';
import { sitePositions } from './sites.ts';
import { jitteredTtlS } from './players/steering-list.ts';

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
  const scene: Scene = {
    at: deps.clock.now(),
    footprint: deps.footprint,
    geoip: deps.geoip,
    defaultSite: deps.defaultSite,
    sites: sitePositions(deps.fleet.sites(), deps.footprint),
    contenders: deps.fleet.contenders(ask.title),
    originBase: deps.originBase,
    ttlMs: deps.ttlMs,
  };
  const { decision, considered, fallbacks } = decideIn(scene, { ...ask, title: ask.title.id });
  // A manifest of a play that was counted already counts nothing again.
  if (ask.session === null && ask.countAs !== null) {
    deps.plays.count(ask.title.id, decision.pathways[0]!.site);
    deps.metrics.add('larder_steering_plays_total', 1, { route: ask.countAs });
    for (const name of fallbacks) deps.metrics.add('larder_fallback_total', 1, { name });
  }
  deps.metrics.observe('larder_steering_decision_seconds', (deps.clock.monotonic() - startedMs) / 1000);
  return { decision, considered };
}

/** Everything that a decision is made from, at one moment: from the fleet, or from history as it was then. */
export interface Scene extends Ground {
  readonly at: number;
  readonly contenders: readonly Contender[];
  readonly originBase: string;
  readonly ttlMs: number;
}

/** Pure but for the name of a new session, on which nothing else hangs. */
export function decideIn(
  scene: Scene,
  ask: Pick<Ask, 'address' | 'session' | 'pathways'> & { readonly title: string },
): Decided & Pick<Verdict, 'fallbacks'> {
  const session = ask.session ?? newSession();
  const client = findFooting(ask.address, scene);
  const zone = client.footing.site === null ? undefined : scene.footprint.zones.get(client.footing.site);
  const { pathways, considered, fallbacks } = decide({
    title: ask.title,
    session,
    client,
    home: { backups: zone?.backups ?? [], nearestAfterBackups: zone?.nearestAfterBackups ?? true },
    sites: scene.sites,
    contenders: scene.contenders,
    pathways: ask.pathways,
    originBase: scene.originBase,
  });
  const decision: Decision = {
    protocol: PROTOCOL_VERSION,
    id: session,
    at: new Date(scene.at).toISOString(),
    title: ask.title,
    client: client.footing,
    ttlS: jitteredTtlS(scene.ttlMs, hash32(session) / 2 ** 32),
    pathways: [...pathways],
  };
  return { decision, considered, fallbacks };
}

/** 16 of a-z 0-9. The remainder favours some letters by 1/7 of their share: 82 bits stay, and nothing is secret. */
const newSession = (): string => Array.from(randomBytes(SESSION_CHARS), (byte) => (byte % 36).toString(36)).join('');
