// Where a pathway's assets are: from a URL inside a manifest to the same asset below each pathway's base.

import { ASSET_PATH_CHARS_MAX } from '../../protocol/ids.ts';

/** What a manifest needs to know of a pathway. */
export interface Base {
  readonly id: string;
  /** Absolute, no trailing slash. */
  readonly base: string;
}

/** How the origin names the manifest, so that the URLs in it can be resolved. */
export interface Place {
  /** `--origin`, no trailing slash. */
  readonly originBase: string;
  /** Asset path of the manifest. */
  readonly path: string;
}

/** A URL of a manifest: an asset that every pathway has, or something elsewhere that stays as it is. */
export type Target = { readonly asset: string } | { readonly elsewhere: string };

export function resolveTarget(uri: string, place: Place): Target {
  const manifest = `${place.originBase}${place.path}`;
  if (!URL.canParse(uri, manifest)) return { elsewhere: uri };
  const { href } = new URL(uri, manifest);
  if (!href.startsWith(`${place.originBase}/`)) return { elsewhere: uri };
  return { asset: href.slice(place.originBase.length) };
}

export const targetOn = (target: Target, pathway: Base): string =>
  'asset' in target ? pathway.base + target.asset : target.elsewhere;

/**
 * The base URL that an appliance advertises, as steering hands it out: without query, fragment, user or trailing slash,
 * and with everything escaped that could end a quoted string in a playlist. Null where it is no such URL.
 */
export function baseOf(advertised: string): string | null {
  if (!URL.canParse(advertised)) return null;
  const url = new URL(advertised);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') return null;
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '') return null;
  return `${url.origin}${url.pathname.replace(/\/+$/, '')}`;
}

/**
 * The asset path of a request for `/v1/route/…`, percent-encoding kept; or what is wrong with it. Dot segments are
 * refused in every spelling, for the client would resolve them against another appliance's path.
 */
export function assetPathOf(raw: string): { readonly path: string } | { readonly problem: string } {
  if (raw.length > ASSET_PATH_CHARS_MAX) return { problem: `is longer than ${ASSET_PATH_CHARS_MAX} characters` };
  if (!/^\/[!-~]+$/.test(raw) || /[\\#?]/.test(raw)) return { problem: 'must start with / and be percent-encoded' };
  let decoded: string;
  try {
    decoded = decodeURIComponent(raw);
  } catch {
    return { problem: 'has a broken percent escape' };
  }
  // eslint-disable-next-line no-control-regex
  if (/[\u0000-\u001f\u007f\\]/.test(decoded)) return { problem: 'holds a control character or backslash' };
  if (/(^|\/)\.{1,2}(\/|$)/.test(decoded)) return { problem: 'must have no . or .. segment' };
  return { path: raw };
}
