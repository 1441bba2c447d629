// Heads of hits as bytes, one per stored answer, made again when the second changes: time does no more to them than Age, Date
// and what is left of freshness. Which fields there are is said in `answer.ts`; what node:http adds to every answer is added here alike.

import { validateHeaderValue } from 'node:http';
import { assetHeaders, type ProxyIdentity } from '../http/response-headers.ts';
import { hitOutcomeOf, type CachedAsset } from '../serve/metadata-cache.ts';
import { HEAD_ROOM_BYTES } from '../io/buffer-pool.ts';

/** What is left of the room for lengths and positions. */
const DYNAMIC_BYTES_MAX = 200;

interface Prepared {
  readonly second: number;
  /** Status line and fields up to those that depend on the range; null where the long way has to answer. */
  readonly partial: Buffer | null;
  readonly whole: Buffer | null;
}

export class ResponseHeads {
  readonly #prepared = new WeakMap<CachedAsset, Prepared>();
  readonly #identity: ProxyIdentity;
  readonly #keepAlive: string;

  constructor(identity: ProxyIdentity, keepAliveMs: number) {
    this.#identity = identity;
    this.#keepAlive = `Connection: keep-alive\r\nKeep-Alive: timeout=${Math.floor(keepAliveMs / 1000)}\r\n`;
  }

  /**
   * Writes the head so that it ends at `end` and returns where it begins; -1 where this asset's head is no plain one.
   * `last` is inclusive.
   */
  write(stored: CachedAsset, spec: ResponseHeadSpec, into: Buffer, end: number): number {
    const prepared = this.#prepare(stored, spec.nowMs);
    const fixed = spec.ranged ? prepared.partial : prepared.whole;
    if (fixed === null) return -1;
    const dynamic = spec.ranged
      ? `content-length: ${spec.last - spec.first + 1}\r\ncontent-range: bytes ${spec.first}-${spec.last}/${stored.asset.bytes}\r\n\r\n`
      : `content-length: ${stored.asset.bytes}\r\n\r\n`;
    const dynamicAt = end - dynamic.length;
    into.write(dynamic, dynamicAt, 'latin1');
    const at = dynamicAt - fixed.length;
    into.set(fixed, at);
    return at;
  }

  #prepare(stored: CachedAsset, nowMs: number): Prepared {
    const second = Math.floor(nowMs / 1000);
    const known = this.#prepared.get(stored);
    if (known !== undefined && known.second === second) return known;
    const fields = this.#fieldsText(stored, nowMs);
    const prepared: Prepared = {
      second,
      partial: fields === null ? null : Buffer.from(`HTTP/1.1 206 Partial Content\r\n${fields}`, 'latin1'),
      whole: fields === null ? null : Buffer.from(`HTTP/1.1 200 OK\r\n${fields}`, 'latin1'),
    };
    this.#prepared.set(stored, prepared);
    return prepared;
  }

  #fieldsText(stored: CachedAsset, nowMs: number): string | null {
    const fields = assetHeaders(stored.asset, hitOutcomeOf(stored, nowMs), { ...this.#identity, nowMs });
    let text = '';
    let dated = false;
    for (const name in fields) {
      const value = String(fields[name]);
      try {
        validateHeaderValue(name, value);
      } catch {
        return null;
      }
      // An answer's framing is node:http's own business, and so is what an asset says of it.
      if (UNCOMMON.has(name)) return null;
      dated ||= name === 'date';
      text += `${name}: ${value}\r\n`;
    }
    if (!dated) text += `Date: ${new Date(nowMs).toUTCString()}\r\n`;
    text += this.#keepAlive;
    return text.length + DYNAMIC_BYTES_MAX > HEAD_ROOM_BYTES ? null : text;
  }
}

const UNCOMMON = new Set([
  'connection',
  'content-length',
  'content-range',
  'keep-alive',
  'trailer',
  'transfer-encoding',
]);

export interface ResponseHeadSpec {
  readonly nowMs: number;
  readonly ranged: boolean;
  readonly first: number;
  readonly last: number;
}
