// Errors and redirects that the origin lets a shared cache keep: short answers without bytes worth a file. They are kept in
// memory alone, and only as long as the origin says.

import { LRUCache } from 'lru-cache';
import type { Clock } from '../../runtime/clock.ts';
import {
  ageSeconds,
  explicitLifetimeMs,
  freshnessOf,
  varyNames,
  whyUnstorable,
  type Asker,
} from '../http/freshness.ts';
import type { Ask } from '../link/messages.ts';
import type { Located } from './lookup-result.ts';
import { askerOf } from './origin-request.ts';
import { assetKeyOf } from '../http/vary.ts';

const ANSWERS_MAX = 10_000;
const BYTES_MAX = 32 * 2 ** 20;
/** RFC 9110 15.1, those that say nothing of one request's range, conditions or credentials; and two that redirect for now. */
const STATUSES = new Set([204, 300, 301, 302, 307, 308, 404, 405, 410, 414, 501]);

type Relayed = Located & { readonly kind: 'relay' };
type Kept = Omit<Relayed, 'body'> & { readonly body: Buffer };

export class Remembered {
  readonly #kept = new LRUCache<string, Kept>({
    max: ANSWERS_MAX,
    maxSize: BYTES_MAX,
    sizeCalculation: ({ body, headers }, key) => body.length + key.length + JSON.stringify(headers).length,
  });
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Null where there is none, or none that is fresh. */
  find({ key, anew }: Ask): Relayed | null {
    const kept = this.#kept.get(assetKeyOf(key));
    if (kept === undefined || anew) return null;
    const nowMs = this.#clock.now();
    const leftMs = leftOf(kept, nowMs);
    if (leftMs <= 0) return null;
    return { ...kept, headers: { ...kept.headers, age: String(ageSeconds(kept.bornMs, nowMs)) }, leftMs };
  }

  /** What came from the origin takes the place of what is older. */
  learn({ key, headers }: Ask, located: Located): Located {
    const name = assetKeyOf(key);
    const before = this.#kept.get(name);
    if (located.kind === 'relay' && before !== undefined && before.bornMs > located.bornMs) return located;
    this.forget(name);
    if (located.kind !== 'relay') return located;
    const { body, forward } = located;
    if (!Buffer.isBuffer(body) || !mayKeep(located, askerOf(headers)) || leftOf(located, this.#clock.now()) <= 0)
      return located;
    this.#kept.set(name, { ...located, body });
    return { ...located, forward: { ...forward, stored: true } };
  }

  forget(key: string): void {
    this.#kept.delete(key);
  }
}

/** Of what the origin said; nothing where it said nothing. */
const leftOf = ({ headers, bornMs }: Pick<Relayed, 'headers' | 'bornMs'>, nowMs: number): number =>
  bornMs + (explicitLifetimeMs(headers) ?? 0) - nowMs;

function mayKeep({ status, headers, cookies, bornMs }: Relayed, asker: Asker): boolean {
  return (
    STATUSES.has(status) &&
    cookies.length === 0 &&
    whyUnstorable(headers, asker) === null &&
    !freshnessOf(headers, bornMs).always &&
    varyNames(headers)!.length === 0
  );
}
