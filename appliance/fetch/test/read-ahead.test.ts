// How far ahead is fetched for readers of different speed, and when more connections are tried.

import { expect, test } from 'vitest';
import { BLOCK_BYTES } from '../../store/block-file.ts';
import { ReadAhead } from '../read-ahead.ts';

/** Reads blocks at this pace and returns how many blocks should be on their way at the end. */
function blocksAhead(spec: { readonly blocks: number; readonly msPerBlock: number; readonly fetchMs: number }): number {
  let nowMs = 1_000;
  const readAhead = new ReadAhead({ monotonic: () => nowMs });
  let bytes = 0;
  for (let block = 0; block < spec.blocks; block += 1) {
    bytes = readAhead.bytesAhead(spec.fetchMs);
    readAhead.sliceGiven();
    nowMs += spec.msPerBlock;
    readAhead.sliceTaken();
  }
  return bytes / BLOCK_BYTES;
}

test('is twice what the reader reads in the time of an upstream fetch', () => {
  // 500 MiB/s over 80 ms, and a player at 8 Mb/s.
  expect(blocksAhead({ blocks: 20, msPerBlock: 2, fetchMs: 80 })).toBeCloseTo(80, 0);
  expect(blocksAhead({ blocks: 20, msPerBlock: 1_000, fetchMs: 80 })).toBeCloseTo(0.16, 2);
});

test('is nothing before anything is known of the reader or the origin', () => {
  expect(blocksAhead({ blocks: 1, msPerBlock: 1, fetchMs: 80 })).toBe(0);
  expect(blocksAhead({ blocks: 9, msPerBlock: 1, fetchMs: 0 })).toBe(0);
});

test('follows a reader that becomes slower, by its last eight blocks', () => {
  let nowMs = 0;
  const readAhead = new ReadAhead({ monotonic: () => nowMs });
  const read = (blocks: number, ms: number): number => {
    let bytes = 0;
    for (let block = 0; block < blocks; block += 1) {
      bytes = readAhead.bytesAhead(100);
      readAhead.sliceGiven();
      nowMs += ms;
      readAhead.sliceTaken();
    }
    return bytes / BLOCK_BYTES;
  };
  expect(read(30, 2)).toBeCloseTo(100, 0);
  expect(read(9, 200)).toBeCloseTo(1, 1);
  expect(readAhead.isSlow).toBe(true);
  read(1, 1);
  expect(readAhead.isSlow).toBe(false);
});
