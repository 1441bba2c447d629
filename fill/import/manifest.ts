// What reading a manifest gives, HLS or DASH: renditions with the assets they name, and where each name stands. Every
// complaint about a manifest is made here, so that all name the document, the line and the reason in the same words.

import type { Rendition } from '../../protocol/catalog.ts';
import { Fault } from '../../protocol/faults.ts';
import { ASSET_PATH_CHARS_MAX } from '../../protocol/ids.ts';

export const SEGMENTS_MAX = 100_000;
/** The manifest rendition among them. */
export const RENDITIONS_MAX = 200;

/** A place in a document; a playlist's complaints name the line, XML's the column too. */
export interface Place {
  readonly path: string;
  readonly line: number;
  readonly column?: number;
}

/** An asset that the document names, and the bytes of it that it needs. */
export interface Reference {
  readonly path: string;
  readonly place: Place;
  /** Exclusive end of the byte range named; null for the whole. */
  readonly endBytes: number | null;
  /** A sidx box must start here. */
  readonly indexAt: number | null;
}

/** One rendition as one manifest sees it. */
export interface RenditionDraft {
  readonly id: string;
  readonly kind: Exclude<Rendition['kind'], 'manifest'>;
  readonly bandwidth: number | null;
  readonly width: number | null;
  readonly height: number | null;
  readonly language: string | null;
  /** Media playlist of an HLS rendition. */
  readonly playlists: readonly string[];
  /** Initialization sections: several renditions may share one. */
  readonly inits: readonly Reference[];
  /** What makes the rendition itself: drafts that share one of these are the same rendition. */
  readonly segments: readonly Reference[];
}

export interface ManifestDraft {
  readonly dialect: 'hls' | 'dash';
  readonly path: string;
  readonly text: string;
  readonly name: string | null;
  readonly durationS: number;
  readonly renditions: readonly RenditionDraft[];
  /** Keys, session data: they go with the manifest. */
  readonly shared: readonly Reference[];
}

export function complain(place: Place, reason: string): Fault {
  const column = place.column === undefined ? '' : ` column ${place.column}`;
  return new Fault('manifest_invalid', `${place.path} line ${place.line}${column}: ${reason}`, {
    detail: {
      path: place.path,
      line: place.line,
      ...(place.column === undefined ? {} : { column: place.column }),
    },
  });
}

/** Where a title lies: names are resolved against the document and must stay below the base. */
export interface Ground {
  /** Base URL of the origin, without a trailing slash. */
  readonly origin: string;
  /** Asset path that every asset of the title starts with. */
  readonly base: string;
}

/**
 * The asset path that a relative name means. Players resolve names against the appliance's URL, which has the session
 * prefix and none of the origin's own base path: so an absolute URL would pass by every appliance.
 */
export function resolveName(name: string, document: string, ground: Ground, place: Place): string {
  if (name.trim() === '') throw complain(place, 'the URI is empty');
  if (/^[A-Za-z][A-Za-z0-9+.-]*:/.test(name) || name.startsWith('//'))
    throw complain(
      place,
      `"${clip(name)}" is an absolute URL: players would fetch it past every appliance; use a relative URI below ${ground.base}`,
    );
  if (name.startsWith('/') && new URL(ground.origin).pathname !== '/')
    throw complain(place, `"${clip(name)}" starts with /, but the origin lies at ${ground.origin}; use a relative URI`);
  const stand = `http://larder.invalid${document}`;
  if (!URL.canParse(name, stand)) throw complain(place, `"${clip(name)}" is no URI`);
  const url = new URL(name, stand);
  if (url.search !== '' || url.hash !== '' || /[?#]/.test(name))
    throw complain(place, `"${clip(name)}" has a query or a fragment; assets are named by their path alone`);
  if (!url.pathname.startsWith(ground.base) || url.pathname.endsWith('/'))
    throw complain(place, `"${clip(name)}" is ${url.pathname}, which is no file below the title's base ${ground.base}`);
  if (url.pathname.length > ASSET_PATH_CHARS_MAX || !/^\/[!-~]*$/.test(url.pathname) || url.pathname.includes('\\'))
    throw complain(place, `"${clip(name)}" is no asset path: at most ${ASSET_PATH_CHARS_MAX} characters, no backslash`);
  if (/%(?![0-9A-Fa-f]{2})|%00/.test(url.pathname))
    throw complain(place, `"${clip(name)}" has a % that begins no character; write it as %25`);
  return url.pathname;
}

export const clip = (text: string): string => (text.length > 100 ? `${text.slice(0, 100)}…` : text);
