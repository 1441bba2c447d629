// What a worker does with misses while the storekeeper is down. Blocks on disk are served as always; everything that misses comes here.
//
// - A block of an asset that the worker knows is fetched from the origin by the asset's own entity tag, and not stored. A version
//   without such a tag cannot be verified by anybody else, nor can any in a fleet, where only the storekeeper has the digests: its
//   readers are refused, and a response that has begun ends short, so that the player moves on.
// - A request for an asset that the worker does not know is forwarded to the origin. In a fleet it is refused: only what the catalog
//   names may be served, and only the storekeeper knows the catalog.
//
// What goes to the origin is bounded by the bypass pool and counted as the fallback `storekeeper_down_origin`.

import { Fault, isFault } from '../../protocol/faults.ts';
import { discardBody, type Origin } from '../fetch/origin.ts';
import type { AssetView } from '../http/asset.ts';
import type { KeyMode } from '../http/asset-key.ts';
import { byteStreamOf, type ByteStream } from '../io/byte-stream.ts';
import type { Counters } from '../metrics.ts';

export const isStorekeeperDown = (error: unknown): error is Fault => isFault(error) && error.code === 'unreachable';

/** What becomes of a request for an asset that the worker does not know. Throws `overloaded` in a fleet. */
export function withoutLookup(
  deps: { readonly mode: KeyMode; readonly counters: Counters },
  directives: ReadonlyMap<string, string | null>,
): { readonly kind: 'not-cached' } | { readonly kind: 'bypass'; readonly forward: 'bypass'; readonly detail: string } {
  if (directives.has('only-if-cached')) return { kind: 'not-cached' };
  if (deps.mode === 'fleet')
    throw new Fault('overloaded', 'the storekeeper is being restarted; assets that are not known here wait for it');
  countFallback(deps.counters);
  return { kind: 'bypass', forward: 'bypass', detail: 'storekeeper-down' };
}

/** The bytes `first` to `last` of a known asset from the origin. `cause` is how the storekeeper was found to be down. */
export async function fetchRangeFromOrigin(
  deps: { readonly origin: Origin; readonly counters: Counters },
  asset: AssetView,
  spec: {
    readonly first: number;
    readonly last: number;
    readonly headers: Readonly<Record<string, string>>;
    readonly cause: Fault;
  },
): Promise<ByteStream> {
  const { key, originTag } = asset;
  const { first, last, headers, cause } = spec;
  if (originTag === null)
    throw new Fault('overloaded', `${key}: the storekeeper is being restarted, and only it can verify this version`, {
      cause,
    });
  countFallback(deps.counters);
  const response = await deps.origin.fetch('bypass', { key, first, last, ifMatch: originTag, headers, signal: null });
  if (response.kind === 'relay') {
    discardBody(response.body);
    throw new Fault('origin_refused', `${key}: the origin answered ${response.status}`);
  }
  if (response.first !== first) {
    discardBody(response.body);
    throw new Fault('origin_protocol_error', `${key}: the origin sent bytes from ${response.first}, not ${first}`);
  }
  return byteStreamOf(response.body);
}

const countFallback = (counters: Counters): void =>
  counters.add('larder_fallback_total', 1, { name: 'storekeeper_down_origin' });
