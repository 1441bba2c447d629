// Framing of several ranges as multipart/byteranges, parsed by a parser that knows only the delimiters.

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { frameMultipart, newBoundary } from '../multipart.ts';
import type { ByteRange } from '../range.ts';
import { multipartParts } from '../../test/http-client.ts';

const ranges = fc
  .array(fc.tuple(fc.nat(99), fc.nat(99)), { minLength: 2, maxLength: 8 })
  .map((pairs) => pairs.map(([a, b]): ByteRange => ({ first: Math.min(a, b), last: Math.max(a, b) })));
/** Bodies that look like framing wherever a range cuts them. */
const bodies = fc
  .array(fc.constantFrom('\r\n', '--', '--larder', 'x', '\r\n\r\n', '\0', 'Content-Range: bytes 0-0/1'), {
    minLength: 60,
    maxLength: 100,
  })
  .map((pieces) => Buffer.from(pieces.join('').padEnd(100, '-').slice(0, 100), 'latin1'));

function framed(
  list: readonly ByteRange[],
  body: Buffer,
  type: string | null,
): ReturnType<typeof frameMultipart> & { readonly bytes: Buffer } {
  const framing = frameMultipart(list, body.length, type, newBoundary());
  const pieces = list.flatMap((range, at) => [framing.heads[at]!, body.subarray(range.first, range.last + 1)]);
  return { ...framing, bytes: Buffer.concat([...pieces, framing.tail]) };
}

test('parsing the framed ranges gives the same ranges and bytes, and the announced length', () => {
  fc.assert(
    fc.property(
      ranges,
      bodies,
      fc.constantFrom('video/mp4', 'text/plain; charset="utf-8"', null),
      (list, body, type) => {
        const { bytes, contentLength, contentType } = framed(list, body, type);
        expect(bytes.length).toBe(contentLength);
        const parsed = multipartParts({
          version: 'HTTP/1.1',
          status: 206,
          fields: [['content-type', contentType]],
          body: bytes,
          complete: true,
        });
        expect(parsed.map(({ first, last, total, contentType: own }) => ({ first, last, total, own }))).toEqual(
          list.map(({ first, last }) => ({ first, last, total: body.length, own: type })),
        );
        for (const [at, part] of parsed.entries())
          expect(part.body.equals(body.subarray(list[at]!.first, list[at]!.last + 1))).toBe(true);
      },
    ),
    { numRuns: 500 },
  );
});

test('a boundary has at most 70 of the allowed characters, and each one is different', () => {
  const boundaries = Array.from({ length: 1_000 }, newBoundary);
  for (const boundary of boundaries) expect(boundary).toMatch(/^[0-9A-Za-z'()+_,./:=?-]{1,70}$/);
  expect(new Set(boundaries).size).toBe(1_000);
});
