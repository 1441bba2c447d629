// The two ends of `read.sock` over a real socket: what the storekeeper says arrives, whole and in order, or is known not to.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Fault } from '../../../protocol/faults.ts';
import { systemClock } from '../../../runtime/clock.ts';
import { silentLog } from '../../../runtime/log.ts';
import type { FetchRequest } from '../messages.ts';
import { StorekeeperClient } from '../client.ts';
import { LinkServer } from '../server.ts';
import type { MissResult } from '../../fetch/miss.ts';
import { replyTo } from '../../fetch/reply.ts';
import { BufferPool } from '../../io/buffer-pool.ts';
import type { ByteSlice, ByteStream } from '../../io/byte-stream.ts';
import { MemoryVolume } from '../../store/test/memory-volume.ts';
import { noise } from '../../test/rig.ts';

const MIB = 2 ** 20;
const FORWARD = { reason: 'uri-miss', status: null, stored: true, collapsed: false } as const;
const ASK: FetchRequest = {
  ...{ key: '/film', expected: null, from: 0, to: null, headers: {}, directives: [], revalidate: null },
  ...{ wantsFullBody: false, continuation: false },
};

let before: string;
let server: LinkServer;
let client: StorekeeperClient;
let open: (ask: FetchRequest) => Promise<MissResult>;

beforeEach(async () => {
  before = process.cwd();
  process.chdir(mkdtempSync(join(tmpdir(), 'larder-link-')));
  server = new LinkServer({ clock: systemClock, log: silentLog });
  client = new StorekeeperClient(new BufferPool());
  await server.listen({
    fetch: async (request) => replyTo(request, await open(request), async () => null),
    update: async () => undefined,
    arePresent: ({ first, last }) => first === last,
    ...{ onReport: () => undefined, onWorkerGone: () => undefined },
  });
});

afterEach(async () => {
  await server.close();
  const used = process.cwd();
  process.chdir(before);
  rmSync(used, { recursive: true });
});

/** An asset of so many bytes, of which these come. */
function opened(bytes: number, body: AsyncGenerator<Buffer> | null, headers: Record<string, string> = {}): MissResult {
  const meta = { key: ASK.key, version: '"v"', bytes, headers, generatedAtMs: null, holding: null };
  const entry = new MemoryVolume().create(meta, 0);
  return { kind: 'asset', entry, validated: true, forward: FORWARD, body };
}

async function* inPieces(data: Buffer, sizes: readonly number[]): AsyncGenerator<Buffer> {
  for (let at = 0, piece = 0; at < data.length; piece += 1) {
    const end = Math.min(data.length, at + sizes[piece % sizes.length]!);
    yield data.subarray(at, end);
    at = end;
    if (piece % 3 === 0) await turn();
  }
}

async function all(body: ByteStream): Promise<ByteSlice[]> {
  const pieces: ByteSlice[] = [];
  for (let piece = await body.next(); piece !== null; piece = await body.next()) pieces.push(piece);
  return pieces;
}

const joined = (pieces: readonly ByteSlice[]): Buffer => Buffer.concat(pieces.map(({ bytes }) => bytes));

test('bytes come whole and in order, in whatever pieces, also of an answer that ends early', async () => {
  const whole = noise(3 * MIB);
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        sizes: fc.array(fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1_000, max: MIB })), {
          minLength: 2,
          maxLength: 6,
        }),
        bytes: fc.oneof(fc.integer({ min: 1, max: 5_000 }), fc.integer({ min: 5_000, max: 3 * MIB })),
        missing: fc.constantFrom(0, 0, 1, 70_000),
      }),
      async ({ sizes, bytes, missing }) => {
        // Pieces of a byte or two for all of it would take minutes.
        const data = whole.subarray(0, Math.max(...sizes) < 1_000 ? Math.min(bytes, 2_000) : bytes);
        const there = data.subarray(0, Math.max(0, data.length - missing));
        open = async () => opened(data.length, inPieces(there, sizes));
        const { head, body } = await client.fetch(ASK);
        expect(head).toMatchObject({ kind: 'asset', body: true, asset: { bytes: data.length } });
        // Held to the end, so that no buffer may come twice.
        const pieces = await all(body);
        expect(joined(pieces).equals(there)).toBe(true);
        for (const { release } of pieces) release();
      },
    ),
    { numRuns: 60 },
  );
});

test('many are answered at once, each with its own bytes', async () => {
  open = async ({ from }) => opened(64 * MIB, inPieces(noise(300_000, from as number), [70_001]));
  const asks = Array.from({ length: 60 }, (_, from) => client.fetch({ ...ASK, from, to: from + 300_000 }));
  for (const [from, answer] of (await Promise.all(asks)).entries())
    expect(joined(await all(answer.body)).equals(noise(300_000, from))).toBe(true);
});

test('a head may be long and of any letters', async () => {
  const headers = { 'content-type': 'x'.repeat(150_000), title: 'Käse 🧀\n' };
  open = async ({ key }) => ({ ...opened(5, null, { ...headers, key }) });
  const { head, body } = await client.fetch({ ...ASK, key: '/ä/🎬' });
  expect(head).toMatchObject({ kind: 'asset', body: false, asset: { headers: { ...headers, key: '/ä/🎬' } } });
  expect(await body.next()).toBeNull();
});

test('a fault is thrown as what it is, and the next ask is answered', async () => {
  open = async () => {
    throw new Fault('origin_timeout', 'too late');
  };
  await expect(client.fetch(ASK)).rejects.toMatchObject({ code: 'origin_timeout', message: 'too late' });
  expect(await client.arePresent({ id: 1, volume: 0 } as never, [4, 4])).toBe(true);
  expect(await client.arePresent({ id: 1, volume: 0 } as never, [4, 5])).toBe(false);
  await client.update({ kind: 'invalidate', keys: ['/film'] });
});

test('who leaves an answer ends its stream, and may ask again', async () => {
  let streams = 0;
  open = async () => {
    streams += 1;
    return opened(
      1_000 * MIB,
      endless(() => (streams -= 1)),
    );
  };
  const { body } = await client.fetch(ASK);
  (await body.next())!.release();
  body.close();
  await vi.waitUntil(() => streams === 0, { timeout: 10_000 });
  open = async () => opened(3, inPieces(Buffer.from('abc'), [3]));
  expect(joined(await all((await client.fetch(ASK)).body)).toString()).toBe('abc');
});

test('of an answer that nobody reads a little is under way, not all', async () => {
  let given = 0;
  open = async () =>
    opened(
      1_000 * MIB,
      endless(
        () => undefined,
        () => (given += 1),
      ),
    );
  const { body } = await client.fetch(ASK);
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(given).toBeLessThanOrEqual(2);
  for (let taken = 0; taken < 5 * MIB;) {
    const piece = (await body.next())!;
    taken += piece.bytes.length;
    piece.release();
  }
  expect(given).toBeGreaterThanOrEqual(5);
  body.close();
});

test('an answer that breaks off says so behind the bytes that came', async () => {
  open = async () => opened(MIB, broken());
  const { body } = await client.fetch(ASK);
  const pieces: ByteSlice[] = [];
  await expect(
    (async () => {
      for (let piece = await body.next(); piece !== null; piece = await body.next()) pieces.push(piece);
    })(),
  ).rejects.toThrow('closed the connection');
  expect(joined(pieces).toString()).toBe('first');
});

test('a storekeeper that is away is said to be so, until it is back', async () => {
  open = async () => opened(3, inPieces(Buffer.from('abc'), [3]));
  await all((await client.fetch(ASK)).body);
  await server.close();
  await turn();
  for (let at = 0; at < 3; at += 1) await expect(client.fetch(ASK)).rejects.toMatchObject({ code: 'unreachable' });
  expect(await client.arePresent({ id: 1, volume: 0 } as never, [4, 4])).toBe(false);
});

async function* endless(ended: () => void, gave: () => void = () => undefined): AsyncGenerator<Buffer> {
  try {
    for (const piece = noise(MIB); ;) {
      gave();
      yield piece;
    }
  } finally {
    ended();
  }
}

async function* broken(): AsyncGenerator<Buffer> {
  yield Buffer.from('first');
  await new Promise((resolve) => setTimeout(resolve, 20));
  throw new Fault('origin_unreachable', 'gone');
}
