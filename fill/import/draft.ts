// Joins what a title's manifests say into one list of renditions and one owner for every asset. Pure. Drafts that share a
// media segment are one rendition: so an HLS playlist, a DASH Representation and an I-frame playlist over the same files are
// filled and held together. What several renditions need (a shared init, a key) goes with the manifests.

import type { Rendition } from '../../protocol/catalog.ts';
import type { ManifestDraft, Reference, RenditionDraft } from './manifest.ts';

export const MANIFEST_RENDITION = 'manifest';

export interface TitleShape {
  readonly renditions: readonly ShapedRendition[];
  /** Every asset once, in order of renditions; the documents themselves included. */
  readonly assets: readonly { readonly path: string; readonly rendition: string }[];
  /** Every place where an asset is named, for checks against its size. */
  readonly references: readonly Reference[];
}

export type ShapedRendition = Omit<Rendition, 'bytes' | 'assets'>;

interface Sourced extends RenditionDraft {
  readonly dialect: ManifestDraft['dialect'];
}

const LEAD_ORDER: Readonly<Record<RenditionDraft['kind'], number>> = { video: 0, audio: 1, text: 2, iframe: 3 };

/** `priorIds`: rendition id by asset path in the revision before, so that a rendition keeps its name. */
export function shapeTitle(manifests: readonly ManifestDraft[], priorIds: ReadonlyMap<string, string>): TitleShape {
  const drafts = manifests.flatMap((m) => m.renditions.map((r): Sourced => ({ ...r, dialect: m.dialect })));
  const groups = groupBySegment(drafts);
  const taken = new Set([MANIFEST_RENDITION]);
  const named = groups.map((group) => ({ group, id: nameOf(group, priorIds, taken) }));
  const owners = ownersOf(named, manifests);
  const renditions = named.map(({ group, id }) => describe(group, id));
  const manifest = { id: MANIFEST_RENDITION, kind: 'manifest' } as const;
  return {
    renditions: [{ ...manifest, bandwidth: null, width: null, height: null, language: null }, ...renditions],
    assets: [...owners].map(([path, rendition]) => ({ path, rendition })),
    references: [
      ...manifests.flatMap((m) => m.shared),
      ...drafts.flatMap((draft) => [...draft.inits, ...draft.segments]),
    ],
  };
}

/** Drafts joined by shared segments, transitively, in the order of their first member. */
function groupBySegment(drafts: readonly Sourced[]): Sourced[][] {
  const leaders = drafts.map((_, at) => at);
  const leaderOf = (at: number): number => {
    let leader = at;
    while (leaders[leader] !== leader) leader = leaders[leader]!;
    return leader;
  };
  const byPath = new Map<string, number>();
  for (const [at, draft] of drafts.entries()) {
    for (const { path } of draft.segments) {
      const other = byPath.get(path);
      if (other === undefined) byPath.set(path, at);
      else {
        const [low, high] = [leaderOf(other), leaderOf(at)].sort((a, b) => a - b);
        leaders[high!] = low!;
      }
    }
  }
  const groups = new Map<number, Sourced[]>();
  for (const [at, draft] of drafts.entries()) {
    const leader = leaderOf(at);
    groups.set(leader, [...(groups.get(leader) ?? []), draft]);
  }
  return [...groups.values()];
}

/** The draft that a group is named after: video before audio before text before I-frames, HLS before DASH. */
function leadOf(group: readonly Sourced[]): Sourced {
  return [...group].sort((a, b) => LEAD_ORDER[a.kind] - LEAD_ORDER[b.kind])[0]!;
}

function nameOf(group: readonly Sourced[], priorIds: ReadonlyMap<string, string>, taken: Set<string>): string {
  const prior = group.flatMap((d) => d.segments).map((s) => priorIds.get(s.path));
  const kept = prior.find((id) => id !== undefined && !taken.has(id));
  const wished = kept ?? renditionId(leadOf(group).id);
  let id = wished;
  for (let at = 2; taken.has(id); at += 1) id = `${wished}-${at}`;
  taken.add(id);
  return id;
}

/** Only characters that a rendition id may have; what is percent-encoded in a path becomes a dash. */
function renditionId(text: string): string {
  const words = text
    .split('/')
    .map((word) => word.replaceAll(/(%[0-9A-Fa-f]{2}|[^A-Za-z0-9._-])+/g, '-').replace(/^[^A-Za-z0-9]+/, ''));
  return (
    words
      .filter((word) => word !== '')
      .join('/')
      .slice(0, 200)
      .replace(/\/$/, '') || 'rendition'
  );
}

function describe(group: readonly Sourced[], id: string): ShapedRendition {
  const lead = leadOf(group);
  const same = group.filter((draft) => draft.kind === lead.kind);
  const first = <T>(pick: (draft: Sourced) => T | null): T | null =>
    same.map(pick).find((value) => value !== null) ?? null;
  // DASH names the rendition's own bit rate; an HLS variant's includes that of the audio played with it.
  const own = same.find((draft) => draft.dialect === 'dash' && draft.bandwidth !== null);
  return {
    id,
    kind: lead.kind,
    bandwidth: own?.bandwidth ?? first((draft) => draft.bandwidth),
    width: first((draft) => draft.width),
    height: first((draft) => draft.height),
    language: first((draft) => draft.language),
  };
}

function ownersOf(
  named: readonly { readonly group: readonly Sourced[]; readonly id: string }[],
  manifests: readonly ManifestDraft[],
): Map<string, string> {
  // A segment belongs to its rendition, whoever else names the file; what else several renditions need, to none of them.
  const segments = new Map<string, string>();
  for (const { group, id } of named) for (const { path } of group.flatMap((d) => d.segments)) segments.set(path, id);
  const users = new Map<string, Set<string>>();
  for (const { group, id } of named)
    for (const path of group.flatMap(around)) users.set(path, (users.get(path) ?? new Set()).add(id));
  const ownerOf = (path: string, id: string): string =>
    segments.get(path) ?? (users.get(path)!.size === 1 ? id : MANIFEST_RENDITION);
  const owners = new Map<string, string>();
  for (const { path, shared } of manifests)
    for (const own of [path, ...shared.map((reference) => reference.path)])
      owners.set(own, segments.get(own) ?? MANIFEST_RENDITION);
  for (const { group, id } of named)
    for (const draft of group)
      for (const path of [...around(draft), ...draft.segments.map((s) => s.path)])
        if (!owners.has(path)) owners.set(path, ownerOf(path, id));
  return owners;
}

const around = (draft: RenditionDraft): string[] => [...draft.playlists, ...draft.inits.map((init) => init.path)];
