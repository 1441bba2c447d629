// Framing of multipart/byteranges (RFC 9110 14.6). Pure: the bytes between the parts come from the store.

import { randomBytes } from 'node:crypto';
import type { ByteRange } from './range.ts';
import { rangeBytes } from './range.ts';

export interface Multipart {
  readonly contentType: string;
  readonly contentLength: number;
  /** One per range, to be written before its bytes. */
  readonly heads: readonly Buffer[];
  readonly tail: Buffer;
}

export const newBoundary = (): string => `larder-${randomBytes(12).toString('hex')}`;

export function frameMultipart(
  ranges: readonly ByteRange[],
  length: number,
  contentType: string | null,
  boundary: string,
): Multipart {
  const heads = ranges.map((range, at) =>
    Buffer.from(
      `${at === 0 ? '' : '\r\n'}--${boundary}\r\n` +
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
