// One import: parse the manifests, list every rendition and asset, read each asset from the origin, and publish the whole title
// at once. The other manifests of the title are read again too, so that a revision never mixes old and new.

import { posix } from 'node:path';
import type { Asset, CatalogAsset, Rendition, Title } from '../../protocol/catalog.ts';
import { Fault, isFault } from '../../protocol/faults.ts';
import type { Clock } from '../../runtime/clock.ts';
import { forEachAtMost } from '../../runtime/semaphore.ts';
import type { Catalog, PublishResult, TitleDraft } from '../catalog.ts';
import { parseMpd } from './dash.ts';
import { parseMediaPlaylist } from './hls-media.ts';
import { parseMultivariant } from './hls.ts';
import type { ProgressTracker } from './import-progress.ts';
import {
  manifestFault,
  RENDITIONS_MAX,
  type AssetReference,
  type ParsedManifest,
  type ParsedRendition,
  type SourceLocation,
  type TitleRoot,
} from './manifest.ts';
import { mergeManifests, type MergedTitle } from './merge.ts';
import { OriginReader } from './origin-reader.ts';

const MANIFEST_BYTES_MAX = 2 ** 20;
const PLAYLIST_BYTES_MAX = 16 * 2 ** 20;
const TITLE_ASSETS_MAX = 200_000;

export interface ImportTitleDeps {
  readonly catalog: Catalog;
  /** Base URL of the origin, without a trailing slash. */
  readonly origin: string;
  readonly concurrency: number;
  readonly clock: Clock;
}

interface ImportTask {
  readonly title: string;
  /** Asset path of the manifest. */
  readonly path: string;
  readonly tracker: ProgressTracker;
  readonly signal: AbortSignal;
}

interface ImportContext {
  readonly task: ImportTask;
  readonly deps: ImportTitleDeps;
  readonly titleRoot: TitleRoot;
  readonly reader: OriginReader;
  /** The revision before this import. */
  readonly previous: { readonly title: Title | null; readonly assets: ReadonlyMap<string, CatalogAsset> };
  /** Manifests and playlists as assets: they were read when they were parsed. */
  readonly documents: Map<string, Asset>;
}

/** Throws a fault of the manifest or of the origin; the catalog is then unchanged. */
export async function importTitle(task: ImportTask, deps: ImportTitleDeps): Promise<PublishResult> {
  const { catalog, origin, concurrency, clock } = deps;
  const { signal, tracker } = task;
  const reader = new OriginReader({ origin, connections: concurrency, signal, clock, tracker });
  try {
    const titleRoot: TitleRoot = { origin, base: baseOf(task.path) };
    const previous = {
      title: catalog.find(task.title),
      assets: new Map((await catalog.assets(task.title)).map((asset) => [asset.path, asset])),
    };
    catalog.assertBaseFree(task.title, titleRoot.base);
    const context: ImportContext = { task, deps, titleRoot, reader, previous, documents: new Map() };
    const manifests = await readManifests(context);
    const merged = mergeManifests(manifests, renditionIds(previous.assets));
    assertWithinLimits(merged, task.path);
    const assets = await readAssets(merged, context);
    await checkReferences(merged.references, assets, reader);
    return await catalog.publish(draftTitle(context, manifests, merged, assets), assets);
  } finally {
    await reader.close();
  }
}

/** `/harbor/` for `/harbor/master.m3u8`. */
export const baseOf = (path: string): string => path.slice(0, path.lastIndexOf('/') + 1);

const renditionIds = (assets: ReadonlyMap<string, CatalogAsset>): Map<string, string> =>
  new Map([...assets].map(([path, asset]) => [path, asset.rendition]));

/** The requested manifest, and the title's manifest in the other dialect if the origin still has it. HLS comes first. */
async function readManifests(context: ImportContext): Promise<ParsedManifest[]> {
  const requested = await readManifest(context, context.task.path);
  const manifests = [requested];
  for (const other of context.previous.title?.manifests ?? []) {
    if (other.dialect === requested.dialect || other.path === requested.path) continue;
    try {
      manifests.push(await readManifest(context, other.path));
    } catch (error) {
      const isGone =
        isFault(error) && error.code === 'origin_refused' && [404, 410].includes(Number(error.detail['status']));
      if (!isGone) throw error;
    }
  }
  return manifests.sort((a, b) => (a.dialect === b.dialect ? 0 : a.dialect === 'hls' ? -1 : 1));
}

async function readManifest({ titleRoot, reader, documents }: ImportContext, path: string): Promise<ParsedManifest> {
  const { text, asset } = await reader.readText(path, MANIFEST_BYTES_MAX);
  documents.set(path, asset);
  const extension = posix.extname(path).toLowerCase();
  const isXml = extension === '.mpd' || (extension !== '.m3u8' && text.trimStart().startsWith('<'));
  if (isXml) return parseMpd(text, path, titleRoot);
  const multivariant = parseMultivariant(text, path, titleRoot);
  const renditions: ParsedRendition[] = [];
  const shared: AssetReference[] = [...multivariant.shared];
  let durationS = 0;
  for (const { path: playlistPath, location, ...description } of multivariant.entries) {
    const playlist = await withReferrer(location, () => reader.readText(playlistPath, PLAYLIST_BYTES_MAX));
    documents.set(playlistPath, playlist.asset);
    const media = parseMediaPlaylist(playlist.text, playlistPath, titleRoot);
    renditions.push({ ...description, playlists: [playlistPath], inits: media.inits, segments: media.segments });
    shared.push(...media.keys);
    durationS = Math.max(durationS, media.durationS);
  }
  return { dialect: 'hls', path, text, name: multivariant.name, durationS, renditions, shared };
}

function assertWithinLimits({ renditions, assets }: MergedTitle, path: string): void {
  if (renditions.length > RENDITIONS_MAX)
    throw new Fault(
      'manifest_invalid',
      `${path} and the title's other manifest name ${renditions.length - 1} renditions; a title has at most ${RENDITIONS_MAX - 1}`,
    );
  if (assets.length > TITLE_ASSETS_MAX)
    throw new Fault(
      'manifest_invalid',
      `${path} names ${assets.length} assets; a title has at most ${TITLE_ASSETS_MAX}`,
    );
}

/** Every asset, in the order of the merged title. The first failure stops the others. */
async function readAssets(merged: MergedTitle, context: ImportContext): Promise<CatalogAsset[]> {
  const { task, deps, reader, previous, documents } = context;
  const { tracker } = task;
  tracker.assetsTotal = merged.assets.length;
  // Reversed, because a map keeps the last value of a key: the first reference is the one to name in a fault.
  const referrers = new Map(merged.references.toReversed().map(({ path, location }) => [path, location]));
  const readOne = async (path: string): Promise<Asset> => {
    const location = referrers.get(path) ?? { path: task.path, line: 1 };
    const result = await withReferrer(location, () =>
      reader.readAsset(path, withoutRendition(previous.assets.get(path))),
    );
    if (!result.modified) tracker.assetsUnchanged += 1;
    return result.asset;
  };
  const assets: CatalogAsset[] = [];
  await forEachAtMost(deps.concurrency, merged.assets.entries(), async ([index, { path, rendition }]) => {
    const asset = documents.get(path) ?? (await readOne(path));
    assets[index] = { ...asset, rendition };
    tracker.finishAsset(path, asset.bytes);
  });
  return assets;
}

/** The rendition of an asset may change while its bytes do not. */
function withoutRendition(asset: CatalogAsset | undefined): Asset | null {
  if (asset === undefined) return null;
  const { rendition: _, ...rest } = asset;
  return rest;
}

/** Adds to a refusal by the origin which line of which document references the asset. */
async function withReferrer<T>(location: SourceLocation, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (!isFault(error) || error.code !== 'origin_refused') throw error;
    const { path, line } = location;
    throw new Fault(error.code, `${error.message}; it is named by ${path} line ${line}`, {
      cause: error,
      detail: { ...error.detail, path, line },
    });
  }
}

/** Byte ranges must lie inside their files, and a sidx box must be where the MPD says. */
async function checkReferences(
  references: readonly AssetReference[],
  assets: readonly CatalogAsset[],
  reader: OriginReader,
): Promise<void> {
  const sizes = new Map(assets.map((asset) => [asset.path, asset.bytes]));
  for (const { path, location, rangeEnd, sidxOffset } of references) {
    const bytes = sizes.get(path)!;
    if (rangeEnd !== null && rangeEnd > bytes)
      throw manifestFault(location, `the byte range ends at ${rangeEnd}, but ${path} has ${bytes} bytes`);
    if (sidxOffset === null) continue;
    const boxHeader = await reader.readBytes(path, sidxOffset, 8);
    if (boxHeader !== null && boxHeader.toString('latin1', 4, 8) !== 'sidx')
      throw manifestFault(location, `indexRange: there is no sidx box at byte ${sidxOffset} of ${path}`);
  }
}

function draftTitle(
  { task, deps, titleRoot }: ImportContext,
  manifests: readonly ParsedManifest[],
  merged: MergedTitle,
  assets: readonly CatalogAsset[],
): TitleDraft {
  const durationS = Math.max(...manifests.map((manifest) => manifest.durationS));
  const renditions = merged.renditions.map((rendition): Rendition => {
    const own = assets.filter((asset) => asset.rendition === rendition.id);
    const bytes = sum(own.map((asset) => asset.bytes));
    // If no manifest gives the bit rate, the mean bit rate is used.
    const mean = rendition.kind === 'manifest' || durationS === 0 ? null : Math.round((bytes * 8) / durationS);
    return { ...rendition, bytes, assets: own.length, bandwidth: rendition.bandwidth ?? mean };
  });
  const name = manifests.map((manifest) => manifest.name).find((n) => n !== null) ?? capitalized(task.title);
  return {
    id: task.title,
    name: name.slice(0, 200),
    base: titleRoot.base,
    durationS,
    bytes: sum(assets.map((asset) => asset.bytes)),
    renditions,
    manifests: manifests.map(({ dialect, path, text }) => ({ dialect, path, text })),
    importedAt: new Date(deps.clock.now()).toISOString(),
  };
}

const capitalized = (id: string): string => id.charAt(0).toUpperCase() + id.slice(1);
const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
