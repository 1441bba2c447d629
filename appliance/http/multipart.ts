// Framing of multipart/byteranges (RFC 9110 14.6): the part headers and the length of the whole body. The bytes of the ranges
// come from the store.

import { randomBytes } from 'node:crypto';
import type { ByteRange } from './range.ts';
import { rangeBytes } from './range.ts';

export interface Multipart {
  readonly contentType: string;
  readonly contentLength: number;
  /** Delimiter and part header of each range, to be written before its bytes. */
  readonly heads: readonly Buffer[];
  /** The closing delimiter. */
  readonly tail: Buffer;
}

/** Random, so that no asset contains it. */
export const newBoundary = (): string => `larder-${randomBytes(12).toString('hex')}`;

/** `length` is that of the asset. */
export function frameMultipart(
  ranges: readonly ByteRange[],
  length: number,
  contentType: string | null,
  boundary: string,
): Multipart {
  const heads = ranges.map((range, index) =>
    Buffer.from(
      `${index === 0 ? '' : '\r\n'}--${boundary}\r\n` +
        (contentType === null ? '' : `Content-Type: ${contentType}\r\n`) +
        `Content-Range: bytes ${range.first}-${range.last}/${length}\r\n\r\n`,
      'latin1',
    ),
  );
  const tail = Buffer.from(`\r\n--${boundary}--\r\n`, 'latin1');
  const bodies = ranges.reduce((sum, range) => sum + rangeBytes(range), 0);
  return {
    contentType: `multipart/byteranges; boundary=${boundary}`,
    contentLength: heads.reduce((sum, head) => sum + head.length, 0) + bodies + tail.length,
    heads,
    tail,
  };
}
