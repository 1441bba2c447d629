// Selects the stored variant that matches a request (RFC 9111 4.1). The key of a variant is the key of its asset, a space, and
// a hash of the request's values of the fields that Vary of the newest response names. Workers and the storekeeper each keep
// a `VariantIndex`; it is bounded and does no I/O.

import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { entriesAtMost } from '../../runtime/lru.ts';
import { varyNames } from './freshness.ts';

type Headers = Readonly<Record<string, string>>;

/** Assets that vary. */
const ASSETS_MAX = 50_000;
/** Variants of one asset, of which the least recently stored is dropped. */
const VARIANTS_MAX = 64;

interface Variants {
  /** The names in Vary. */
  readonly names: readonly string[];
  /** Keys of the stored variants, the least recently stored first. */
  readonly keys: Set<string>;
}

export class VariantIndex {
  /** By asset key. */
  readonly #variants = new LRUCache<string, Variants>(entriesAtMost(ASSETS_MAX));

  /** The key of the variant that this request selects, by the Vary of the newest response. */
  variantKeyFor(asset: string, request: Headers): string {
    const variants = this.#variants.get(asset);
    return variants === undefined ? asset : variantKey(asset, variants.names, request);
  }

  varies(asset: string): boolean {
    return this.#variants.has(asset);
  }

  /**
   * Records the Vary of a response that is stored under `key`. Returns the keys of variants that exceed the limit or that no
   * request selects any more.
   */
  record(key: string, response: Headers): readonly string[] {
    const asset = primaryKeyOf(key);
    const names = varyNames(response) ?? [];
    const previous = this.#variants.get(asset);
    if (names.length === 0) {
      this.#variants.delete(asset);
      return [...(previous?.keys ?? [])];
    }
    const isSame = previous !== undefined && previous.names.join() === names.join();
    const keys = isSame ? previous.keys : new Set<string>();
    const obsolete = isSame || previous === undefined ? [] : [...previous.keys];
    // Moves the key to the end of the insertion order.
    keys.delete(key);
    keys.add(key);
    for (const oldest of keys) {
      if (keys.size <= VARIANTS_MAX) break;
      keys.delete(oldest);
      obsolete.push(oldest);
    }
    this.#variants.set(asset, { names, keys });
    return obsolete;
  }

  /** All keys under which responses of the asset may be stored. */
  storedKeys(asset: string): readonly string[] {
    return [asset, ...(this.#variants.get(asset)?.keys ?? [])];
  }

  clear(): void {
    this.#variants.clear();
  }
}

export function variantKey(asset: string, names: readonly string[], request: Headers): string {
  if (names.length === 0) return asset;
  const hash = createHash('sha256');
  for (const name of names)
    hash.update(`${name}:${normalizedValue(Object.hasOwn(request, name) ? request[name] : undefined)}\n`);
  return `${asset} ${hash.digest('base64url').slice(0, 22)}`;
}

/** The key of the asset that a variant belongs to. No request target contains a space. */
export function primaryKeyOf(key: string): string {
  const space = key.indexOf(' ');
  return space === -1 ? key : key.slice(0, space);
}

/** RFC 9111 4.1: white space around commas is insignificant. An absent field differs from an empty one. */
const normalizedValue = (value: string | undefined): string =>
  value === undefined
    ? ''
    : `=${value
        .split(',')
        .map((part) => part.trim().replaceAll(/\s+/g, ' '))
        .join(',')}`;
