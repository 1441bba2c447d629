// From the result of a miss to the reply on the link.

import type { AssetView } from '../http/asset.ts';
import type { FetchRequest } from '../link/messages.ts';
import type { FetchResponse } from '../link/server.ts';
import type { Entry } from '../store/volume.ts';
import type { MissResult } from './miss.ts';

/** `originTag`: the entity tag by which a worker may ask the origin for the version of the entry, if there is one. */
export function replyTo(
  request: FetchRequest,
  result: MissResult,
  originTag: (entry: Entry) => string | null,
): FetchResponse {
  if (result.kind === 'bypass' || result.kind === 'not-cached') return { head: result, body: null, bytes: null };
  if (result.kind === 'relay') {
    const { body, generatedAtMs: _, ...head } = result;
    return { head, body: Buffer.isBuffer(body) ? [body] : body, bytes: null };
  }
  const { kind, entry, validated, forward, body } = result;
  const asset = assetViewOf(entry, originTag(entry));
  const from = request.from === 'suffix' ? 0 : request.from;
  const bytes = body === null ? null : Math.min(request.to ?? entry.bytes, entry.bytes) - from;
  return { head: { kind, asset, body: body !== null, validated, forward }, body, bytes };
}

const assetViewOf = (entry: Entry, originTag: string | null): AssetView => ({
  key: entry.key,
  version: entry.version,
  originTag,
  bytes: entry.bytes,
  headers: entry.headers,
  generatedAtMs: entry.generatedAtMs,
  holding: entry.holding,
  id: entry.id,
  volume: entry.volume.number,
  directory: entry.volume.directory,
});
