// The catalog: titles, their renditions and assets. Fill owns it; steering and appliances pull changes by revision.

import { z } from 'zod';
import { assetPath, byteCount, id, isoInstant, protocolVersion, renditionId } from './ids.ts';

/** Bytes covered by each digest of an asset, independent of the block size of a store. */
export const DIGEST_CHUNK_BYTES = 2 ** 20;
export const CATALOG_PAGE_TITLES = 100;
export const ASSET_PAGE_MAX = 2_000;

const sha256Hex = z.string().regex(/^[0-9a-f]{64}$/);

/** A strong entity tag with its quotes, as in RFC 9110 8.8.3. */
export const strongEtag = z
  .string()
  .regex(/^"[!#-~]*"$/)
  .max(256);

const asset = z.object({
  path: assetPath,
  bytes: byteCount,
  /** The ETag that players get, the same from every appliance; the origin's own if `validator` is `origin`. */
  etag: strongEtag,
  /** `digest`: the origin has no strong ETag, and the ETag is derived from the digest. It is never sent upstream. */
  validator: z.enum(['origin', 'digest']),
  contentType: z.string().max(255),
  lastModified: z.string().max(64).nullable(),
  digest: z.object({
    /** sha256 over the concatenated chunk digests (raw bytes). */
    root: sha256Hex,
    /** sha256 of each chunk of 1 MiB, in order; none for an empty asset. */
    chunks: z.array(sha256Hex),
  }),
});
export type Asset = z.infer<typeof asset>;

const catalogAsset = asset.extend({ rendition: renditionId });
export type CatalogAsset = z.infer<typeof catalogAsset>;

const rendition = z.object({
  id: renditionId,
  /** The `manifest` rendition has the multivariant playlist, the MPD and shared assets such as key files. */
  kind: z.enum(['video', 'audio', 'text', 'iframe', 'manifest']),
  bytes: byteCount,
  assets: z.number().int().nonnegative(),
  bandwidth: z.number().int().nonnegative().nullable(),
  width: z.number().int().nullable(),
  height: z.number().int().nullable(),
  language: z.string().max(35).nullable(),
});
export type Rendition = z.infer<typeof rendition>;

const manifest = z.object({
  dialect: z.enum(['hls', 'dash']),
  path: assetPath,
  /** The document of the origin, unchanged. Steering rewrites its text for each play. */
  text: z.string().max(2 ** 20),
});

export const title = z.object({
  id,
  revision: z.number().int().positive(),
  name: z.string().max(200),
  /** Prefix of all asset paths of the title, which no other title shares. Ends with `/`. */
  base: assetPath,
  durationS: z.number().nonnegative(),
  bytes: byteCount,
  renditions: z.array(rendition).max(200),
  manifests: z.array(manifest).max(8),
  importedAt: isoInstant,
});
export type Title = z.infer<typeof title>;

/** `GET /v1/catalog?since=REVISION`: titles changed after it, oldest first. While `more`, the next page is since `revision`. */
export const catalogPage = z.object({
  protocol: protocolVersion,
  revision: z.number().int().nonnegative(),
  titles: z.array(title).max(CATALOG_PAGE_TITLES),
  removed: z.array(id),
  more: z.boolean(),
});
export type CatalogPage = z.infer<typeof catalogPage>;

/** `GET /v1/titles/{id}/assets?offset=N`. `next` is null on the last page. */
export const assetPage = z.object({
  protocol: protocolVersion,
  title: id,
  revision: z.number().int().positive(),
  assets: z.array(catalogAsset).max(ASSET_PAGE_MAX),
  next: z.number().int().nullable(),
});
export type AssetPage = z.infer<typeof assetPage>;
