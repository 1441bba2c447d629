// Merges the manifests of a title into one list of renditions, and assigns every asset to one of them. Pure.
//
// Parsed renditions that share a media segment are the same rendition: an HLS playlist, a DASH Representation and an I-frame
// playlist over the same files are filled and held together. An asset that several renditions need, such as a shared init or a
// key, belongs to the manifest rendition.

import type { Rendition } from '../../protocol/catalog.ts';
import type { AssetReference, ParsedManifest, ParsedRendition } from './manifest.ts';

const MANIFEST_RENDITION = 'manifest';

export interface MergedTitle {
  readonly renditions: readonly RenditionDescription[];
  /** Every asset once, ordered by rendition; the manifests themselves included. */
  readonly assets: readonly { readonly path: string; readonly rendition: string }[];
  /** All references to assets, to be checked against the assets' sizes. */
  readonly references: readonly AssetReference[];
}

type RenditionDescription = Omit<Rendition, 'bytes' | 'assets'>;

/** A parsed rendition with the dialect of its manifest. */
interface SourcedRendition extends ParsedRendition {
  readonly dialect: ParsedManifest['dialect'];
}

/** Parsed renditions that are one rendition of the title. */
interface RenditionGroup {
  readonly id: string;
  readonly members: readonly SourcedRendition[];
}

/** `previousIds` maps asset paths to rendition ids of the previous revision, so that renditions keep their names. */
export function mergeManifests(
  manifests: readonly ParsedManifest[],
  previousIds: ReadonlyMap<string, string>,
): MergedTitle {
  const parsed = manifests.flatMap(({ dialect, renditions }) =>
    renditions.map((rendition): SourcedRendition => ({ ...rendition, dialect })),
  );
  const groups = nameGroups(groupBySegment(parsed), previousIds);
  const manifest = { id: MANIFEST_RENDITION, kind: 'manifest' } as const;
  return {
    renditions: [
      { ...manifest, bandwidth: null, width: null, height: null, language: null },
      ...groups.map(describeRendition),
    ],
    assets: [...assignAssets(groups, manifests)].map(([path, rendition]) => ({ path, rendition })),
    references: [
      ...manifests.flatMap(({ shared }) => shared),
      ...parsed.flatMap(({ inits, segments }) => [...inits, ...segments]),
    ],
  };
}

/** Joins renditions that share segments, transitively, in the order of their first members. A union-find over indices. */
function groupBySegment(renditions: readonly SourcedRendition[]): SourcedRendition[][] {
  const parents = renditions.map((_, index) => index);
  const rootOf = (index: number): number => {
    let root = index;
    while (parents[root] !== root) root = parents[root]!;
    return root;
  };
  const indexOfSegment = new Map<string, number>();
  for (const [index, { segments }] of renditions.entries()) {
    for (const { path } of segments) {
      const other = indexOfSegment.get(path);
      if (other === undefined) indexOfSegment.set(path, index);
      else {
        const [low, high] = [rootOf(other), rootOf(index)].sort((a, b) => a - b);
        parents[high!] = low!;
      }
    }
  }
  const groups = new Map<number, SourcedRendition[]>();
  for (const [index, rendition] of renditions.entries()) {
    const root = rootOf(index);
    groups.set(root, [...(groups.get(root) ?? []), rendition]);
  }
  return [...groups.values()];
}

const LEAD_ORDER: Readonly<Record<ParsedRendition['kind'], number>> = { video: 0, audio: 1, text: 2, iframe: 3 };

/** The member that names a group and gives its kind: video before audio before text before I-frames, HLS before DASH. */
function leadOf(members: readonly SourcedRendition[]): SourcedRendition {
  return [...members].sort((a, b) => LEAD_ORDER[a.kind] - LEAD_ORDER[b.kind])[0]!;
}

function nameGroups(
  groups: readonly (readonly SourcedRendition[])[],
  previousIds: ReadonlyMap<string, string>,
): RenditionGroup[] {
  const used = new Set([MANIFEST_RENDITION]);
  return groups.map((members) => {
    const id = uniqueId(members, previousIds, used);
    used.add(id);
    return { id, members };
  });
}

/** The id that the segments had in the previous revision, else that of the lead; with a number if it is in use. */
function uniqueId(
  members: readonly SourcedRendition[],
  previousIds: ReadonlyMap<string, string>,
  used: ReadonlySet<string>,
): string {
  const previous = members.flatMap(({ segments }) => segments).map(({ path }) => previousIds.get(path));
  const wanted = previous.find((id) => id !== undefined && !used.has(id)) ?? renditionId(leadOf(members).id);
  let id = wanted;
  for (let n = 2; used.has(id); n += 1) id = `${wanted}-${n}`;
  return id;
}

/** A valid rendition id; percent-encoded and other characters that it may not have become dashes. */
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

function describeRendition({ id, members }: RenditionGroup): RenditionDescription {
  const { kind } = leadOf(members);
  const sameKind = members.filter((member) => member.kind === kind);
  const first = <T>(pick: (member: SourcedRendition) => T | null): T | null =>
    sameKind.map(pick).find((value) => value !== null) ?? null;
  // DASH gives the bit rate of the rendition itself; that of an HLS variant includes the audio played with it.
  const dash = sameKind.find((member) => member.dialect === 'dash' && member.bandwidth !== null);
  return {
    id,
    kind,
    bandwidth: dash?.bandwidth ?? first((member) => member.bandwidth),
    width: first((member) => member.width),
    height: first((member) => member.height),
    language: first((member) => member.language),
  };
}

/** The rendition of each asset. */
function assignAssets(
  groups: readonly RenditionGroup[],
  manifests: readonly ParsedManifest[],
): ReadonlyMap<string, string> {
  const segmentOwners = new Map<string, string>();
  const users = new Map<string, Set<string>>();
  for (const { id, members } of groups) {
    for (const { path } of members.flatMap(({ segments }) => segments)) segmentOwners.set(path, id);
    for (const path of members.flatMap(companions)) users.set(path, (users.get(path) ?? new Set()).add(id));
  }
  // A segment belongs to its rendition, whatever else references the file. A companion of several belongs to none of them.
  const ownerOf = (path: string, id: string): string =>
    segmentOwners.get(path) ?? (users.get(path)!.size === 1 ? id : MANIFEST_RENDITION);
  const owners = new Map<string, string>();
  for (const manifest of manifests)
    for (const path of [manifest.path, ...manifest.shared.map((reference) => reference.path)])
      owners.set(path, segmentOwners.get(path) ?? MANIFEST_RENDITION);
  for (const { id, members } of groups)
    for (const member of members)
      for (const path of [...companions(member), ...member.segments.map((segment) => segment.path)])
        if (!owners.has(path)) owners.set(path, ownerOf(path, id));
  return owners;
}

/** The assets that a rendition needs beside its segments. */
const companions = ({ playlists, inits }: ParsedRendition): string[] => [
  ...playlists,
  ...inits.map((init) => init.path),
];
