// From a URI inside a manifest to the URL of the same asset on each pathway, and the validation of requested asset paths.

import { ASSET_PATH_CHARS_MAX } from '../../protocol/ids.ts';

/** The part of a pathway that is written into a manifest. */
export interface ManifestPathway {
  readonly id: string;
  /** Absolute base URL without a trailing slash. */
  readonly base: string;
}

/** Where the manifest lies on the origin: its URIs are relative to that. */
export interface ManifestLocation {
  /** Value of `--origin`, without a trailing slash. */
  readonly originBase: string;
  /** Asset path of the manifest. */
  readonly path: string;
}

/** What a manifest is steered with. */
export interface ManifestSteering {
  readonly manifest: ManifestLocation;
  /** Best first. */
  readonly pathways: readonly ManifestPathway[];
  /** Absolute URL of the steering list; its query names the ids of `pathways`. */
  readonly serverUri: string;
}

/** A URI in a manifest: an asset, which every pathway serves, or an external URI, which is left unchanged. */
export type UriTarget = { readonly asset: string } | { readonly external: string };

export function resolveUri(uri: string, manifest: ManifestLocation): UriTarget {
  const manifestUrl = `${manifest.originBase}${manifest.path}`;
  if (!URL.canParse(uri, manifestUrl)) return { external: uri };
  const { href } = new URL(uri, manifestUrl);
  if (!href.startsWith(`${manifest.originBase}/`)) return { external: uri };
  return { asset: href.slice(manifest.originBase.length) };
}

export const uriOn = (target: UriTarget, pathway: ManifestPathway): string =>
  'asset' in target ? pathway.base + target.asset : target.external;

/**
 * Validates the asset path of a request for `/v1/route/…` and keeps its percent-encoding. Dot segments are refused in every
 * spelling, because the client would resolve them against the path of the appliance.
 */
export function parseAssetPath(raw: string): { readonly path: string } | { readonly problem: string } {
  if (raw.length > ASSET_PATH_CHARS_MAX) return { problem: `is longer than ${ASSET_PATH_CHARS_MAX} characters` };
  if (!/^\/[!-~]+$/.test(raw) || /[\\#?]/.test(raw)) return { problem: 'must start with / and be percent-encoded' };
  let decoded: string;
  try {
    decoded = decodeURIComponent(raw);
  } catch {
    return { problem: 'has a broken percent escape' };
  }
  if (/[\u0000-\u001f\u007f\\]/.test(decoded)) return { problem: 'holds a control character or backslash' };
  if (/(^|\/)\.{1,2}(\/|$)/.test(decoded)) return { problem: 'must have no . or .. segment' };
  return { path: raw };
}
