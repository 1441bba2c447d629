// One import: read the manifests, list every rendition and asset, ask the origin for each asset, and hand the catalog the
// whole title at once. A title's other manifests are read again with it, so that a revision is never half old.

import { posix } from 'node:path';
import type { Asset, CatalogAsset, Rendition, Title } from '../../protocol/catalog.ts';
import { Fault, isFault } from '../../protocol/faults.ts';
import type { Clock } from '../../runtime/clock.ts';
import { forEachAtMost } from '../../runtime/semaphore.ts';
import { OriginReader } from './assets.ts';
import type { Catalog, Published, TitleDraft } from '../catalog.ts';
import { readMpd } from './dash.ts';
import { readMultivariant } from './hls.ts';
import { readMediaPlaylist } from './hls-media.ts';
import {
  complain,
  RENDITIONS_MAX,
  type Ground,
  type ManifestDraft,
  type Reference,
  type RenditionDraft,
} from './manifest.ts';
import type { Tally } from './import-progress.ts';
import { shapeTitle, type TitleShape } from './draft.ts';

export const MANIFEST_BYTES_MAX = 2 ** 20;
export const PLAYLIST_BYTES_MAX = 16 * 2 ** 20;
export const TITLE_ASSETS_MAX = 200_000;

export interface ImportDeps {
  readonly catalog: Catalog;
  readonly origin: string;
  readonly concurrency: number;
  readonly clock: Clock;
}

export interface ImportTask {
  readonly title: string;
  /** Asset path of the manifest. */
  readonly path: string;
  readonly tally: Tally;
  readonly signal: AbortSignal;
}

/** Throws what is wrong with the manifest or the origin; the catalog is then as it was. */
export async function importTitle(task: ImportTask, deps: ImportDeps): Promise<Published> {
  const reader = new OriginReader({
    origin: deps.origin,
    connections: deps.concurrency,
    signal: task.signal,
    clock: deps.clock,
    tally: task.tally,
  });
  try {
    const before = deps.catalog.find(task.title);
    const known = new Map((await deps.catalog.assets(task.title)).map((asset) => [asset.path, asset]));
    const ground: Ground = { origin: deps.origin, base: baseOf(task.path) };
    deps.catalog.assertBaseFree(task.title, ground.base);
    const read = new Map<string, Asset>();
    const manifests = await readManifests({ task, before, ground, reader, read });
    const shape = shapeTitle(manifests, new Map([...known].map(([path, asset]) => [path, asset.rendition])));
    if (shape.renditions.length > RENDITIONS_MAX)
      throw new Fault(
        'manifest_invalid',
        `${task.path} and the title's other manifest name ${shape.renditions.length - 1} renditions; a title has at most ${RENDITIONS_MAX - 1}`,
      );
    const assets = await readAssets({ task, deps, shape, reader, read, known });
    await checkReferences(shape.references, assets, reader);
    return await deps.catalog.publish(draftOf({ task, deps, ground, shape, manifests, assets }), assets);
  } finally {
    await reader.close();
  }
}

/** `/harbor/` of `/harbor/master.m3u8`. */
export const baseOf = (path: string): string => path.slice(0, path.lastIndexOf('/') + 1);

interface Reading {
  readonly task: ImportTask;
  readonly before: Title | null;
  readonly ground: Ground;
  readonly reader: OriginReader;
  /** Documents read on the way: their assets are known already. */
  readonly read: Map<string, Asset>;
}

/** The manifest asked for, with the title's manifest of the other dialect where the origin still has it. HLS comes first. */
async function readManifests(reading: Reading): Promise<ManifestDraft[]> {
  const { task, before } = reading;
  const asked = await readManifest(reading, task.path);
  const drafts = [asked];
  for (const other of before?.manifests ?? []) {
    if (other.dialect === asked.dialect || other.path === asked.path) continue;
    try {
      drafts.push(await readManifest(reading, other.path));
    } catch (error) {
      const gone =
        isFault(error) && error.code === 'origin_refused' && [404, 410].includes(Number(error.detail['status']));
      if (!gone) throw error;
    }
  }
  return drafts.sort((a, b) => (a.dialect === b.dialect ? 0 : a.dialect === 'hls' ? -1 : 1));
}

async function readManifest({ ground, reader, read }: Reading, path: string): Promise<ManifestDraft> {
  const { text, asset } = await reader.text(path, MANIFEST_BYTES_MAX);
  read.set(path, asset);
  const extension = posix.extname(path).toLowerCase();
  const isXml = extension === '.mpd' || (extension !== '.m3u8' && text.trimStart().startsWith('<'));
  if (isXml) return readMpd(text, path, ground);
  const multivariant = readMultivariant(text, path, ground);
  const renditions: RenditionDraft[] = [];
  const shared: Reference[] = [...multivariant.shared];
  let durationS = 0;
  for (const entry of multivariant.entries) {
    const playlist = await named(entry.place, () => reader.text(entry.path, PLAYLIST_BYTES_MAX));
    read.set(entry.path, playlist.asset);
    const media = readMediaPlaylist(playlist.text, entry.path, ground);
    const { path: playlistPath, place: _, ...description } = entry;
    renditions.push({ ...description, playlists: [playlistPath], inits: media.inits, segments: media.segments });
    shared.push(...media.keys);
    durationS = Math.max(durationS, media.durationS);
  }
  return { dialect: 'hls', path, text, name: multivariant.name, durationS, renditions, shared };
}

interface Fetching {
  readonly task: ImportTask;
  readonly deps: ImportDeps;
  readonly shape: TitleShape;
  readonly reader: OriginReader;
  readonly read: ReadonlyMap<string, Asset>;
  readonly known: ReadonlyMap<string, CatalogAsset>;
}

/** Every asset in the order of the shape. The first failure stops the others. */
async function readAssets({ task, deps, shape, reader, read, known }: Fetching): Promise<CatalogAsset[]> {
  const { tally } = task;
  if (shape.assets.length > TITLE_ASSETS_MAX)
    throw new Fault(
      'manifest_invalid',
      `${task.path} names ${shape.assets.length} assets; a title has at most ${TITLE_ASSETS_MAX}`,
    );
  tally.assetsTotal = shape.assets.length;
  // The first place of several: the map keeps the last that it is given.
  const places = new Map(shape.references.toReversed().map(({ path, place }) => [path, place]));
  const assets: CatalogAsset[] = [];
  const fetchOne = async (path: string): Promise<Asset> => {
    const place = places.get(path) ?? { path: task.path, line: 1 };
    const { asset, fetched } = await named(place, () => reader.asset(path, plain(known.get(path))));
    if (!fetched) tally.assetsUnchanged += 1;
    return asset;
  };
  await forEachAtMost(deps.concurrency, shape.assets.entries(), async ([at, { path, rendition }]) => {
    const asset = read.get(path) ?? (await fetchOne(path));
    assets[at] = { ...asset, rendition };
    tally.finish(path, asset.bytes);
  });
  return assets;
}

/** Without the rendition, which may change while the bytes do not. */
function plain(known: CatalogAsset | undefined): Asset | null {
  if (known === undefined) return null;
  const { rendition: _, ...asset } = known;
  return asset;
}

/** Says which line of which document named what the origin refuses. */
async function named<T>(place: Reference['place'], read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (!isFault(error) || error.code !== 'origin_refused') throw error;
    throw new Fault(error.code, `${error.message}; it is named by ${place.path} line ${place.line}`, {
      cause: error,
      detail: { ...error.detail, path: place.path, line: place.line },
    });
  }
}

/** Byte ranges lie inside their files, and an index is where the MPD says. */
async function checkReferences(
  references: readonly Reference[],
  assets: readonly CatalogAsset[],
  reader: OriginReader,
): Promise<void> {
  const sizes = new Map(assets.map((asset) => [asset.path, asset.bytes]));
  for (const { path, place, endBytes, indexAt } of references) {
    const bytes = sizes.get(path)!;
    if (endBytes !== null && endBytes > bytes)
      throw complain(place, `the byte range ends at ${endBytes}, but ${path} has ${bytes} bytes`);
    if (indexAt === null) continue;
    const head = await reader.bytesAt(path, indexAt, 8);
    if (head !== null && head.toString('latin1', 4, 8) !== 'sidx')
      throw complain(place, `indexRange: there is no sidx box at byte ${indexAt} of ${path}`);
  }
}

interface Drafting {
  readonly task: ImportTask;
  readonly deps: ImportDeps;
  readonly ground: Ground;
  readonly shape: TitleShape;
  readonly manifests: readonly ManifestDraft[];
  readonly assets: readonly CatalogAsset[];
}

function draftOf({ task, deps, ground, shape, manifests, assets }: Drafting): TitleDraft {
  const durationS = Math.max(...manifests.map((m) => m.durationS));
  const renditions = shape.renditions.map((rendition): Rendition => {
    const own = assets.filter((asset) => asset.rendition === rendition.id);
    const bytes = sum(own.map((asset) => asset.bytes));
    // Without a bit rate in the manifest, the mean one.
    const mean = rendition.kind === 'manifest' || durationS === 0 ? null : Math.round((bytes * 8) / durationS);
    return { ...rendition, bytes, assets: own.length, bandwidth: rendition.bandwidth ?? mean };
  });
  const name = manifests.map((m) => m.name).find((n) => n !== null) ?? capital(task.title);
  return {
    id: task.title,
    name: name.slice(0, 200),
    base: ground.base,
    durationS,
    bytes: sum(assets.map((asset) => asset.bytes)),
    renditions,
    manifests: manifests.map(({ dialect, path, text }) => ({ dialect, path, text })),
    importedAt: new Date(deps.clock.now()).toISOString(),
  };
}

const capital = (id: string): string => id.charAt(0).toUpperCase() + id.slice(1);
const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
