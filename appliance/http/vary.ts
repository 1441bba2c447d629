// Which stored answer fits a request whose answers vary (RFC 9111 4.1). The key of a variant is the key of the asset and,
// behind a space, the request's values of the fields that the newest answer's Vary names. Workers and their storekeeper
// both keep these rules.

import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { varyNames } from './freshness.ts';

type Headers = Readonly<Record<string, string>>;

const RULES_MAX = 50_000;
/** Of one asset: the least recently stored make room. */
const VARIANTS_MAX = 64;

interface Rule {
  readonly names: readonly string[];
  readonly keys: Set<string>;
}

export class VariantIndex {
  readonly #rules = new LRUCache<string, Rule>({ max: RULES_MAX });

  /** The key under which an answer to this request would be stored, as far as is known. */
  variantKeyFor(asset: string, request: Headers): string {
    const rule = this.#rules.get(asset);
    return rule === undefined ? asset : variantKey(asset, rule.names, request);
  }

  varies(asset: string): boolean {
    return this.#rules.has(asset);
  }

  /** Takes note of how an answer varies. Returns keys of variants that are too many or fit no request any more. */
  record(key: string, answer: Headers): readonly string[] {
    const asset = primaryKeyOf(key);
    const names = varyNames(answer) ?? [];
    const before = this.#rules.get(asset);
    if (names.length === 0) {
      this.#rules.delete(asset);
      return [...(before?.keys ?? [])];
    }
    const same = before !== undefined && before.names.join() === names.join();
    const keys = same ? before.keys : new Set<string>();
    const stale = same || before === undefined ? [] : [...before.keys];
    keys.delete(key);
    keys.add(key);
    for (const oldest of keys) {
      if (keys.size <= VARIANTS_MAX) break;
      keys.delete(oldest);
      stale.push(oldest);
    }
    this.#rules.set(asset, { names, keys });
    return stale;
  }

  /** All keys under which answers of the asset may be stored. */
  storedKeys(asset: string): readonly string[] {
    return [asset, ...(this.#rules.get(asset)?.keys ?? [])];
  }

  clear(): void {
    this.#rules.clear();
  }
}

export function variantKey(asset: string, names: readonly string[], request: Headers): string {
  if (names.length === 0) return asset;
  const hash = createHash('sha256');
  for (const name of names)
    hash.update(`${name}:${normal(Object.hasOwn(request, name) ? request[name] : undefined)}\n`);
  return `${asset} ${hash.digest('base64url').slice(0, 22)}`;
}

/** A request target has no space. */
export function primaryKeyOf(key: string): string {
  const space = key.indexOf(' ');
  return space === -1 ? key : key.slice(0, space);
}

/** White space around commas says nothing; an absent field is not an empty one. */
const normal = (value: string | undefined): string =>
  value === undefined
    ? ''
    : `=${value
        .split(',')
        .map((part) => part.trim().replaceAll(/\s+/g, ' '))
        .join(',')}`;
