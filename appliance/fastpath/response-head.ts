// Heads of cache hits as bytes. The head of an asset is built once and reused until the second changes, because only Age, Date
// and the ttl in Cache-Status depend on time. The fields come from `assetHeaders`, with those that node:http adds to every
// response.

import { validateHeaderValue } from 'node:http';
import { assetHeaders, type ProxyIdentity } from '../http/response-headers.ts';
import { HEAD_ROOM_BYTES } from '../io/buffer-pool.ts';
import { hitOutcomeOf, type CachedAsset } from '../serve/metadata-cache.ts';

/** Reserved for Content-Length and Content-Range. */
const RANGE_FIELDS_BYTES_MAX = 200;

/** Which response is sent: the bytes from `first` to `last`, inclusive. */
export interface ResponseHeadSpec {
  readonly nowMs: number;
  /** 206 instead of 200. */
  readonly partial: boolean;
  readonly first: number;
  readonly last: number;
}

/** Status line and fields, up to those that depend on the range. Null if the response needs the slow path. */
interface PreparedHead {
  /** Seconds since the epoch. */
  readonly second: number;
  readonly partial: Buffer | null;
  readonly full: Buffer | null;
}

export class ResponseHeads {
  readonly #prepared = new WeakMap<CachedAsset, PreparedHead>();
  readonly #identity: ProxyIdentity;
  readonly #connectionFields: string;

  constructor(identity: ProxyIdentity, keepAliveMs: number) {
    this.#identity = identity;
    this.#connectionFields = `Connection: keep-alive\r\nKeep-Alive: timeout=${Math.floor(keepAliveMs / 1000)}\r\n`;
  }

  /** Writes the head so that it ends at `end`. Returns where it begins, or -1 if the response needs the slow path. */
  write(hit: CachedAsset, spec: ResponseHeadSpec, into: Buffer, end: number): number {
    const prepared = this.#prepare(hit, spec.nowMs);
    const fixed = spec.partial ? prepared.partial : prepared.full;
    if (fixed === null) return -1;
    const { bytes } = hit.asset;
    const rangeFields = spec.partial
      ? `content-length: ${spec.last - spec.first + 1}\r\ncontent-range: bytes ${spec.first}-${spec.last}/${bytes}\r\n\r\n`
      : `content-length: ${bytes}\r\n\r\n`;
    const rangeFieldsAt = end - rangeFields.length;
    into.write(rangeFields, rangeFieldsAt, 'latin1');
    const at = rangeFieldsAt - fixed.length;
    into.set(fixed, at);
    return at;
  }

  #prepare(hit: CachedAsset, nowMs: number): PreparedHead {
    const second = Math.floor(nowMs / 1000);
    const previous = this.#prepared.get(hit);
    if (previous !== undefined && previous.second === second) return previous;
    const fields = this.#fieldLines(hit, nowMs);
    const prepared: PreparedHead = {
      second,
      partial: fields === null ? null : Buffer.from(`HTTP/1.1 206 Partial Content\r\n${fields}`, 'latin1'),
      full: fields === null ? null : Buffer.from(`HTTP/1.1 200 OK\r\n${fields}`, 'latin1'),
    };
    this.#prepared.set(hit, prepared);
    return prepared;
  }

  /** Null if the fields are too long, or if node:http would treat one of them specially. */
  #fieldLines(hit: CachedAsset, nowMs: number): string | null {
    const fields = assetHeaders(hit.asset, hitOutcomeOf(hit, nowMs), { ...this.#identity, nowMs });
    let lines = '';
    let hasDate = false;
    for (const name in fields) {
      const value = String(fields[name]);
      if (FRAMING_FIELDS.has(name) || !isValidValue(name, value)) return null;
      hasDate ||= name === 'date';
      lines += `${name}: ${value}\r\n`;
    }
    if (!hasDate) lines += `Date: ${new Date(nowMs).toUTCString()}\r\n`;
    lines += this.#connectionFields;
    return lines.length + RANGE_FIELDS_BYTES_MAX > HEAD_ROOM_BYTES ? null : lines;
  }
}

/** Fields that frame a message. node:http decides about them, even if an asset was stored with one. */
const FRAMING_FIELDS = new Set([
  'connection',
  'content-length',
  'content-range',
  'keep-alive',
  'trailer',
  'transfer-encoding',
]);

function isValidValue(name: string, value: string): boolean {
  try {
    validateHeaderValue(name, value);
    return true;
  } catch {
    return false;
  }
}
