// A play from request to decision, with its metrics. Every route that names pathways goes through here, so that a player
// gets the same answer in every dialect.

import { randomBytes } from 'node:crypto';
import { PATHWAYS_DEFAULT } from '../protocol/decision.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Metrics } from '../runtime/metrics.ts';
import type { Catalog } from './catalog.ts';
import { decide, type PlayDecision } from './decide.ts';
import type { DecisionInputs, DecisionSettings, PlayRequest } from './decision-inputs.ts';
import type { Fleet } from './fleet.ts';
import type { METRICS } from './metrics.ts';
import type { PlayCounter } from './plays.ts';
import { parseAddress } from './prefix-table.ts';
import { sitePositions } from './sites.ts';

const SESSION_CHARS = 16;

export interface PlayDeps {
  readonly settings: DecisionSettings;
  readonly fleet: Fleet;
  readonly catalog: Catalog;
  readonly clock: Clock;
  readonly metrics: Metrics<typeof METRICS>;
  readonly plays: PlayCounter;
}

/** The public route that a new play is counted under. */
export type PlayRoute = 'play' | 'hls' | 'dash' | 'route';

/** A request from query parameters: without `session` it begins a new one. */
export const playRequestFrom = (query: {
  readonly title: string;
  readonly address: string;
  readonly session?: string | undefined;
  readonly pathways?: number | undefined;
}): PlayRequest => ({
  title: query.title,
  address: query.address,
  session: query.session ?? newSession(),
  pathwaysMax: query.pathways ?? PATHWAYS_DEFAULT,
});

/** `countAs` is null if nothing is to be counted: HEAD, an explanation, a session that has been counted. Throws `not_found`. */
export function decidePlay(deps: PlayDeps, playRequest: PlayRequest, countAs: PlayRoute | null): PlayDecision {
  const startedMs = deps.clock.monotonic();
  const playDecision = decide(currentInputs(deps, playRequest.title), playRequest);
  if (countAs !== null) countPlay(deps, playDecision, countAs);
  deps.metrics.observe('larder_steering_decision_seconds', (deps.clock.monotonic() - startedMs) / 1000);
  return playDecision;
}

function currentInputs(deps: PlayDeps, title: string): DecisionInputs {
  const { settings } = deps;
  return {
    at: deps.clock.now(),
    footprint: settings.footprint,
    geoip: settings.geoip,
    defaultSite: settings.defaultSite,
    originBase: settings.originBase,
    ttlMs: settings.ttlMs,
    sites: sitePositions(deps.fleet.sites(), settings.footprint),
    candidates: deps.fleet.candidates(deps.catalog.get(title)),
  };
}

function countPlay({ plays, metrics }: PlayDeps, { decision, fallbacks }: PlayDecision, route: PlayRoute): void {
  plays.count(decision.title, decision.pathways[0]!.site);
  metrics.add('larder_steering_plays_total', 1, { route });
  if (parseAddress(decision.client.address) === null) metrics.add('larder_steering_unparsed_addresses_total');
  for (const name of fallbacks) metrics.add('larder_fallback_total', 1, { name });
}

/** 16 characters of a-z 0-9, 82 bits. The modulo favours four of them by 1/7, which is harmless: sessions are not secret. */
const newSession = (): string => Array.from(randomBytes(SESSION_CHARS), (byte) => (byte % 36).toString(36)).join('');
