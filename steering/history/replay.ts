// The recorded facts, and the decision inputs of a past instant that are rebuilt from them. Fact keys are built so that one
// prefix selects all facts of a kind. The content of --geoip is not recorded: the current one is used.

import { createHash } from 'node:crypto';
import { z } from 'zod';
import { Fault } from '../../protocol/faults.ts';
import { id, renditionId } from '../../protocol/ids.ts';
import {
  applianceFacts,
  type ApplianceCandidate,
  type ApplianceFacts,
  type DecisionInputs,
  type DecisionSettings,
} from '../decision-inputs.ts';
import { emptyFootprint, parseFootprint, type Footprint } from '../footprint.ts';
import { leaseExpired } from '../health.ts';
import { heldShare } from '../inventory.ts';
import { parseAddress } from '../prefix-table.ts';
import { reportedSites, sitePositions } from '../sites.ts';
import type { HistorySnapshot } from './store.ts';

/** A longer map is not recorded, so that its decisions can be explained only while it is in force. */
export const MAP_CHARS_MAX = 16 * 2 ** 20;

const titleFacts = z.object({ renditions: z.array(z.object({ id: renditionId, bytes: z.number() })) });
type TitleFacts = z.infer<typeof titleFacts>;

const settingsFacts = z.object({
  /** sha256 of the map's text; null without a map. */
  map: z.string().nullable(),
  defaultSite: id.nullable(),
  originBase: z.string(),
  ttlMs: z.number(),
});
export type SettingsFacts = z.infer<typeof settingsFacts>;

/** Rendition ids; never empty, because the fact ends with the last rendition. */
const holdingsFact = z.array(renditionId);

/** Keys of facts. They and the shapes of their values are the layout on disk. */
export const FACT_KEY = {
  /** `ApplianceFacts` */
  appliance: (appliance: string): string => `appliance!${appliance}`,
  /** Held renditions of a title on an appliance. */
  held: (appliance: string, title: string): string => `held!${appliance}!${title}`,
  /** `TitleFacts` */
  title: (title: string): string => `title!${title}`,
  /** Revision of the catalog. */
  catalog: 'catalog',
  /** `SettingsFacts` */
  settings: 'ground',
  /** Text of the map whose digest the settings name. */
  map: 'map',
} as const;

/** The last part of a key: the id of an appliance or a title. */
export const lastPartOf = (key: string): string => key.slice(key.lastIndexOf('!') + 1);

export const titleFactsOf = ({ renditions }: TitleFacts): TitleFacts => ({
  renditions: renditions.map(({ id, bytes }) => ({ id, bytes })),
});

/** The settings of this run. */
export interface HistorySettings extends DecisionSettings {
  /** The text that the footprint was parsed from; null without a map. */
  readonly mapText: string | null;
}

export const settingsFactsOf = (settings: HistorySettings): SettingsFacts => ({
  map: settings.mapText === null ? null : createHash('sha256').update(settings.mapText).digest('hex'),
  defaultSite: settings.defaultSite,
  originBase: settings.originBase,
  ttlMs: settings.ttlMs,
});

export interface PastQuery {
  /** Epoch milliseconds. */
  readonly at: number;
  /** Title id. */
  readonly title: string;
  /** A valid client address. */
  readonly address: string;
}

export interface PastInputs {
  readonly inputs: DecisionInputs;
  readonly catalogRevision: number;
}

/** Throws `not_found` if the title was not in the catalog, `history_missing` if the map was not recorded. */
export async function readPastInputs(
  snapshot: HistorySnapshot,
  query: PastQuery,
  current: Pick<HistorySettings, 'footprint' | 'geoip'> & { readonly facts: SettingsFacts },
): Promise<PastInputs> {
  const { at } = query;
  const catalogRevision = z.number().parse((await snapshot.value(FACT_KEY.catalog, at)) ?? 0);
  const title = titleFacts.nullable().parse(await snapshot.value(FACT_KEY.title(query.title), at));
  if (title === null)
    throw new Fault(
      'not_found',
      `no title "${query.title}" was in the catalog at ${new Date(at).toISOString()} (revision ${catalogRevision})`,
    );
  const settings = settingsFacts.parse(await snapshot.value(FACT_KEY.settings, at));
  const footprint =
    settings.map === current.facts.map ? current.footprint : await readPastFootprint(snapshot, query, settings.map);
  const appliances = await readAppliances(snapshot, at);
  const inputs: DecisionInputs = {
    at,
    footprint,
    geoip: current.geoip,
    defaultSite: settings.defaultSite,
    originBase: settings.originBase,
    ttlMs: settings.ttlMs,
    sites: sitePositions(reportedSites(appliances), footprint),
    candidates: await readCandidates(snapshot, appliances, { query, title }),
  };
  return { inputs, catalogRevision };
}

type IdentifiedFacts = ApplianceFacts & { readonly id: string };

async function readAppliances(snapshot: HistorySnapshot, at: number): Promise<IdentifiedFacts[]> {
  const values = await snapshot.values(FACT_KEY.appliance(''), at);
  return [...values].map(([key, value]) => ({ id: lastPartOf(key), ...applianceFacts.parse(value) }));
}

async function readCandidates(
  snapshot: HistorySnapshot,
  appliances: readonly IdentifiedFacts[],
  { query: { at, title: titleId }, title }: { readonly query: PastQuery; readonly title: TitleFacts },
): Promise<ApplianceCandidate[]> {
  const candidates: ApplianceCandidate[] = [];
  for (const { id, site, weight, base, refusal, leaseEndedAt } of appliances) {
    const held = holdingsFact.nullable().parse(await snapshot.value(FACT_KEY.held(id, titleId), at));
    candidates.push({
      id,
      site,
      weight,
      held: heldShare(held === null ? undefined : new Set(held), title.renditions),
      base,
      refusal: leaseEndedAt === null ? refusal : leaseExpired(at - leaseEndedAt),
    });
  }
  return candidates;
}

async function readPastFootprint(
  snapshot: HistorySnapshot,
  { at, address }: PastQuery,
  map: string | null,
): Promise<Footprint> {
  if (map === null) return emptyFootprint;
  const text = await snapshot.value(FACT_KEY.map, at);
  if (typeof text !== 'string')
    throw new Fault(
      'history_missing',
      `the map of ${new Date(at).toISOString()} had more than ${MAP_CHARS_MAX} characters and was not kept; only the map in force can be used again`,
    );
  return parseFootprint(mapCovering(address, text), 'the recorded map');
}

/**
 * The map without the networks that cannot cover the address. Parsing takes microseconds per network and a map may have a
 * million of them, for which plays would have to wait. The text is a valid map, because it was in force when it was recorded.
 */
function mapCovering(address: string, text: string): string {
  const { bits, key } = parseAddress(address)!;
  const first = bits === 32 ? Number(key) >>> 24 : Number(BigInt(key) >> 112n);
  const [radix, firstBits] = bits === 32 ? [10, 8] : [16, 16];
  const mayCover = (network: string): boolean => {
    const [head, length] = network.split('/') as [string, string | undefined];
    if (length !== undefined && Number(length) < firstBits) return true;
    return (head.startsWith(':') ? 0 : Number.parseInt(head, radix)) === first;
  };
  const map = JSON.parse(text) as { coverageZones: Record<string, { network?: string[]; network6?: string[] }> };
  for (const zone of Object.values(map.coverageZones)) {
    zone.network = bits === 32 ? (zone.network ?? []).filter(mayCover) : [];
    zone.network6 = bits === 128 ? (zone.network6 ?? []).filter(mayCover) : [];
  }
  return JSON.stringify(map);
}
