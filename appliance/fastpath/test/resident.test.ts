// Responses from the memory tier over real sockets: the right bytes at every pace of the reader, also when blocks are withdrawn while
// they are being sent and their slots are used for something else at once.

import type { Socket } from 'node:net';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { noise } from '../../test/rig.ts';
import { eventLoopRounds, until } from '../../test/waiting.ts';
import { FastPathRig } from './fast-path-rig.ts';

const MB = 2 ** 20;
const FILM = noise(6 * MB + 54_321);

let rig: FastPathRig;

beforeEach(async () => {
  rig = new FastPathRig();
  const headers = { date: 'Sun, 01 Nov 2026 00:00:00 GMT', 'cache-control': 'max-age=9999999999' };
  await rig.put('/film', FILM, { headers, generatedAtMs: Date.parse(headers.date) });
  rig.drainCount('');
});

afterEach(() => rig.close());

/** Requests a range and receives at most `bytesMax` of it a turn. */
async function read(
  [first, last]: readonly [number, number],
  pace: { readonly bytesMax: number; readonly onChunk?: (received: number) => void },
): Promise<Buffer> {
  const client: Socket = await rig.connect();
  client.on('error', () => undefined);
  client.write(`GET /film HTTP/1.1\r\nHost: x\r\nRange: bytes=${first}-${last}\r\n\r\n`);
  let all = Buffer.alloc(0);
  client.on('readable', () => undefined);
  for (let end = Number.POSITIVE_INFINITY; all.length < end && !client.destroyed && !client.readableEnded;) {
    const chunk = client.read(Math.min(pace.bytesMax, Math.max(1, client.readableLength))) as Buffer | null;
    if (chunk === null) await eventLoopRounds(1);
    else {
      all = Buffer.concat([all, chunk]);
      const endOfHead = all.indexOf('\r\n\r\n');
      if (endOfHead !== -1) end = endOfHead + 4 + last - first + 1;
      pace.onChunk?.(all.length);
    }
  }
  client.destroy();
  return all.subarray(all.indexOf('\r\n\r\n') + 4);
}

const isRight = (body: Buffer, [first, last]: readonly [number, number]): boolean =>
  body.equals(FILM.subarray(first, last + 1));

test('any range, at any pace, is the same as from the file', async () => {
  rig.makeResident('/film', FILM);
  const position = fc.nat(FILM.length - 1);
  await fc.assert(
    fc.asyncProperty(position, position, fc.constantFrom(70_000, 400_000, 8 * MB), async (a, b, bytesMax) => {
      const range = [Math.min(a, b), Math.max(a, b)] as const;
      expect(isRight(await read(range, { bytesMax }), range)).toBe(true);
    }),
    { numRuns: 20 },
  );
  expect(rig.drainCount('larder_fast_path_total')).toBeGreaterThan(0);
});

test('a block that is withdrawn while it is being sent is sent right to its end', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(FILM.length), { minLength: 1, maxLength: 6 }), async (moments) => {
      const blocks = rig.makeResident('/film', FILM);
      const left = moments.toSorted((a, b) => a - b);
      const range = [0, FILM.length - 1] as const;
      const onChunk = (received: number): void => {
        while (left.length > 0 && received >= left[0]!) {
          left.shift();
          rig.evict(blocks.splice(0, 1 + (received % 3)));
        }
      };
      expect(isRight(await read(range, { bytesMax: 200_000, onChunk }), range)).toBe(true);
      rig.evict(blocks);
    }),
    { numRuns: 10 },
  );
  expect(rig.drainCount('larder_fast_path_total')).toBeGreaterThan(0);
});

test('a block of another version that has the same id is not served from memory', async () => {
  const [first, ...others] = rig.makeResident('/film', FILM);
  const range = [0, FILM.length - 1] as const;
  rig.announce([{ ...first!, version: '"other"' }, ...others]);
  expect(isRight(await read(range, { bytesMax: MB }), range)).toBe(true);
  rig.evict([first!]);
  rig.announce([{ ...first!, version: '"other"' }]);
  expect(isRight(await read(range, { bytesMax: MB }), range)).toBe(true);
});

test('a reader that stalls holds a small buffer and not the tier', async () => {
  const blocks = rig.makeResident('/film', FILM);
  const client = await rig.connect();
  client.pause();
  client.write('GET /film HTTP/1.1\r\nHost: x\r\n\r\n');
  await until(() => rig.drainCount('larder_fast_path_total') > 0);
  rig.evict(blocks);
  const chunks: Buffer[] = [];
  let bytes = 0;
  client.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    bytes += chunk.length;
  });
  client.resume();
  await until(() => bytes > FILM.length);
  await eventLoopRounds();
  const all = Buffer.concat(chunks);
  expect(all.subarray(all.indexOf('\r\n\r\n') + 4).equals(FILM)).toBe(true);
  client.destroy();
});
