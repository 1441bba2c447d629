// The result of parsing a manifest, HLS or DASH: renditions with the assets they reference, and the location of each reference.
// All faults of manifests are made here, so that each names the document, the line and the reason in the same form.

import { normalizedPath } from '../../protocol/asset-path.ts';
import type { Rendition } from '../../protocol/catalog.ts';
import { Fault } from '../../protocol/faults.ts';
import { ASSET_PATH_CHARS_MAX } from '../../protocol/ids.ts';

export const SEGMENTS_MAX = 100_000;
/** Of a title, the manifest rendition included. */
export const RENDITIONS_MAX = 200;

/** A location in a document. XML has columns, playlists have lines only. */
export interface SourceLocation {
  readonly path: string;
  readonly line: number;
  readonly column?: number;
}

/** A reference from a document to an asset. */
export interface AssetReference {
  readonly path: string;
  readonly location: SourceLocation;
  /** Exclusive end of the byte range that is referenced; null for the whole asset. */
  readonly rangeEnd: number | null;
  /** Offset at which a sidx box must start; null if there is no such claim. */
  readonly sidxOffset: number | null;
}

/** One rendition as one manifest describes it. */
export interface ParsedRendition {
  readonly id: string;
  readonly kind: Exclude<Rendition['kind'], 'manifest'>;
  readonly bandwidth: number | null;
  readonly width: number | null;
  readonly height: number | null;
  readonly language: string | null;
  /** Paths of the media playlists; none in DASH. */
  readonly playlists: readonly string[];
  /** Initialization sections, which several renditions may share. */
  readonly inits: readonly AssetReference[];
  /** Media segments. They identify the rendition: two parsed renditions that share a segment are the same one. */
  readonly segments: readonly AssetReference[];
}

export interface ParsedManifest {
  readonly dialect: 'hls' | 'dash';
  readonly path: string;
  readonly text: string;
  readonly name: string | null;
  readonly durationS: number;
  readonly renditions: readonly ParsedRendition[];
  /** Key files and session data, which belong to the manifest rendition. */
  readonly shared: readonly AssetReference[];
}

/** The part of the origin to which the assets of a title are confined. */
export interface TitleRoot {
  /** Base URL of the origin, without a trailing slash. */
  readonly origin: string;
  /** Prefix of every asset path of the title. */
  readonly base: string;
}

export function manifestFault(location: SourceLocation, reason: string): Fault {
  const { path, line, column } = location;
  const at = column === undefined ? '' : ` column ${column}`;
  return new Fault('manifest_invalid', `${path} line ${line}${at}: ${reason}`, {
    detail: { path, line, ...(column === undefined ? {} : { column }) },
  });
}

interface UriContext {
  /** Asset path that the URI is relative to: the document, or the base URL of a DASH element. */
  readonly baseUrl: string;
  readonly titleRoot: TitleRoot;
  readonly location: SourceLocation;
}

/**
 * The asset path that a relative URI means. Players resolve it against the URL of an appliance, which has a session prefix and
 * not the base path of the origin. An absolute URL would therefore bypass the appliances, and is refused.
 */
export function resolveUri(uri: string, { baseUrl, titleRoot, location }: UriContext): string {
  const { origin, base } = titleRoot;
  if (uri.trim() === '') throw manifestFault(location, 'the URI is empty');
  const shown = `"${shorten(uri)}"`;
  if (/^[A-Za-z][A-Za-z0-9+.-]*:/.test(uri) || uri.startsWith('//'))
    throw manifestFault(
      location,
      `${shown} is an absolute URL: players would fetch it past every appliance; use a relative URI below ${base}`,
    );
  if (uri.startsWith('/') && new URL(origin).pathname !== '/')
    throw manifestFault(location, `${shown} starts with /, but the origin lies at ${origin}; use a relative URI`);
  const absoluteBase = `http://larder.invalid${baseUrl}`;
  if (!URL.canParse(uri, absoluteBase)) throw manifestFault(location, `${shown} is no URI`);
  const url = new URL(uri, absoluteBase);
  if (url.search !== '' || url.hash !== '' || /[?#]/.test(uri))
    throw manifestFault(location, `${shown} has a query or a fragment; assets are named by their path alone`);
  if (/%(?![0-9A-Fa-f]{2})/.test(url.pathname))
    throw manifestFault(location, `${shown} has a % that begins no character; write it as %25`);
  const path = normalizedPath(url.pathname);
  if (typeof path !== 'string') throw manifestFault(location, `${shown} ${path.problem}`);
  if (!path.startsWith(base) || path.endsWith('/'))
    throw manifestFault(location, `${shown} is ${path}, which is no file below the title's base ${base}`);
  if (path.length > ASSET_PATH_CHARS_MAX || !/^\/[!-~]*$/.test(path) || path.includes('\\'))
    throw manifestFault(
      location,
      `${shown} is no asset path: at most ${ASSET_PATH_CHARS_MAX} characters, no backslash`,
    );
  return path;
}

/** Text of a document as a message quotes it. */
export const shorten = (text: string): string => (text.length > 100 ? `${text.slice(0, 100)}…` : text);
