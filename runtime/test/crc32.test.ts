// The checksum is the same as zlib's, so that what one machine wrote another can check.

import { crc32 as crc32OfNode } from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { crc32 } from '../crc32.ts';

test('is that of zlib, of bytes in one piece or in two, and of text', () => {
  expect(crc32('123456789')).toBe(0xcbf43926);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 3_000 }), fc.nat(3_000), fc.string(), (bytes, cut, text) => {
      expect(crc32(bytes)).toBe(crc32OfNode(bytes));
      expect(crc32(bytes.subarray(cut), crc32(bytes.subarray(0, cut)))).toBe(crc32OfNode(bytes));
      expect(crc32(text)).toBe(crc32OfNode(text));
    }),
  );
});
