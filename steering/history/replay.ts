// The facts that a decision is made from, as history keeps them, and the scene that they make again. Facts are named so
// that one prefix finds all of a kind; what is not kept, the content of --geoip, is taken as it is today.

import { createHash } from 'node:crypto';
import { z } from 'zod';
import { Fault } from '../../protocol/faults.ts';
import { position } from '../../protocol/heartbeat.ts';
import { id, renditionId } from '../../protocol/ids.ts';
import type { Contender } from '../decide.ts';
import { emptyFootprint, parseFootprint, type Footprint } from '../footprint.ts';
import type { GeoIp } from '../geoip.ts';
import { lapsed } from '../health.ts';
import type { Reading } from './store.ts';
import { shareOf } from '../inventory.ts';
import type { Scene } from '../play.ts';
import { parseAddress } from '../prefix-table.ts';
import { sitePositions, sitesOf } from '../sites.ts';

/** A longer map is not kept: what was decided by it can be explained only while it is in force. */
export const MAP_CHARS_MAX = 16 * 2 ** 20;

export const applianceFact = z.object({
  site: id,
  position: position.nullable(),
  weight: z.number(),
  base: z.string(),
  refusal: z.string().nullable(),
  /** Refused because of that; a sentence would be another one each second. */
  leaseEndedAt: z.number().nullable(),
});
export type ApplianceFact = z.infer<typeof applianceFact>;

const titleFact = z.object({ renditions: z.array(z.object({ id: renditionId, bytes: z.number() })) });
export type TitleFact = z.infer<typeof titleFact>;

const groundFact = z.object({
  /** sha256 of the map's text; null without a map. */
  map: z.string().nullable(),
  defaultSite: id.nullable(),
  originBase: z.string(),
  ttlMs: z.number(),
});
export type GroundFact = z.infer<typeof groundFact>;

const heldFact = z.array(renditionId);

export const FACT = {
  /** `ApplianceFact` */
  appliance: (appliance: string): string => `appliance!${appliance}`,
  /** Held renditions of a title on an appliance: a list, never empty. */
  held: (appliance: string, title: string): string => `held!${appliance}!${title}`,
  /** `TitleFact` */
  title: (title: string): string => `title!${title}`,
  /** Revision of the catalog. */
  catalog: 'catalog',
  /** `GroundFact` */
  ground: 'ground',
  /** Text of the map that the ground names. */
  map: 'map',
} as const;

/** The last part of a fact's name: an appliance or a title. */
export const lastOf = (fact: string): string => fact.slice(fact.lastIndexOf('!') + 1);

/** What steering runs with now. */
export interface Present {
  readonly footprint: Footprint;
  /** Text that the footprint was read from; null without a map. */
  readonly mapText: string | null;
  readonly geoip: GeoIp;
  readonly defaultSite: string | null;
  readonly originBase: string;
  readonly ttlMs: number;
}

export const groundOf = (present: Present): GroundFact => ({
  map: present.mapText === null ? null : createHash('sha256').update(present.mapText).digest('hex'),
  defaultSite: present.defaultSite,
  originBase: present.originBase,
  ttlMs: present.ttlMs,
});

export interface Past {
  readonly scene: Scene;
  readonly catalogRevision: number;
}

/** Throws `not_found` for a title that was not in the catalog, `history_missing` for a map that was not kept. */
export async function readPast(
  reading: Reading,
  ask: { readonly at: number; readonly title: string; readonly address: string },
  present: Present & { readonly ground: GroundFact },
): Promise<Past> {
  const { at } = ask;
  const catalogRevision = z.number().parse((await reading.value(FACT.catalog, at)) ?? 0);
  const title = titleFact.nullable().parse(await reading.value(FACT.title(ask.title), at));
  if (title === null)
    throw new Fault(
      'not_found',
      `no title "${ask.title}" was in the catalog at ${new Date(at).toISOString()} (revision ${catalogRevision})`,
    );
  const ground = groundFact.parse(await reading.value(FACT.ground, at));
  const footprint =
    ground.map === present.ground.map ? present.footprint : await footprintThen(reading, ask, ground.map);
  const appliances: (ApplianceFact & { readonly id: string })[] = [];
  for (const [fact, value] of await reading.values('appliance!', at))
    appliances.push({ id: lastOf(fact), ...applianceFact.parse(value) });
  const contenders: Contender[] = [];
  for (const appliance of appliances) {
    const held = heldFact.nullable().parse(await reading.value(FACT.held(appliance.id, ask.title), at));
    contenders.push({
      id: appliance.id,
      site: appliance.site,
      weight: appliance.weight,
      held: shareOf(held === null ? undefined : new Set(held), title.renditions),
      base: appliance.base,
      refusal: appliance.leaseEndedAt === null ? appliance.refusal : lapsed(at - appliance.leaseEndedAt),
    });
  }
  const scene: Scene = {
    at,
    footprint,
    geoip: present.geoip,
    defaultSite: ground.defaultSite,
    sites: sitePositions(sitesOf(appliances), footprint),
    contenders,
    originBase: ground.originBase,
    ttlMs: ground.ttlMs,
  };
  return { scene, catalogRevision };
}

async function footprintThen(
  reading: Reading,
  { at, address }: { readonly at: number; readonly address: string },
  map: string | null,
): Promise<Footprint> {
  if (map === null) return emptyFootprint;
  const text = await reading.value(FACT.map, at);
  if (typeof text !== 'string')
    throw new Fault(
      'history_missing',
      `the map of ${new Date(at).toISOString()} had more than ${MAP_CHARS_MAX} characters and was not kept; only the map in force can be used again`,
    );
  return parseFootprint(partFor(address, text), 'the map of then');
}

/**
 * The map without networks that cannot cover the address. To read a network takes microseconds, and a map may have a
 * million: plays would wait for it. The text was a valid map when it was kept.
 */
function partFor(address: string, text: string): string {
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
