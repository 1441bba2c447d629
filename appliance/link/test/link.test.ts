// Both ends of `read.sock` over a real socket: a reply of the storekeeper arrives whole and in order, or its failure is known.

import { mkdtempSync, rmSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Fault } from '../../../protocol/faults.ts';
import { systemClock, type Clock, type Timer } from '../../../runtime/clock.ts';
import { silentLog } from '../../../runtime/log.ts';
import { lineSplitter } from '../framing.ts';
import { LINK_SOCKET, type FetchRequest, type StorekeeperMessage } from '../messages.ts';
import { StorekeeperClient } from '../client.ts';
import { LinkServer } from '../server.ts';
import type { MissResult } from '../../fetch/miss.ts';
import { replyTo } from '../../fetch/reply.ts';
import { BufferPool } from '../../io/buffer-pool.ts';
import type { ByteSlice, ByteStream } from '../../io/byte-stream.ts';
import { MappedMemory, OwnedMemory, type SlotSlice } from '../../io/shared-memory.ts';
import type { BlockSlice } from '../../store/receive-buffer.ts';
import { MemoryVolume } from '../../store/test/memory-volume.ts';
import { noise } from '../../test/rig.ts';
import { deferred, eventLoopRounds, until } from '../../test/waiting.ts';

const MIB = 2 ** 20;
const SLOT_BYTES = 65_536;
const FORWARD = { reason: 'uri-miss', status: null, stored: true, collapsed: false } as const;
const REQUEST: FetchRequest = {
  ...{ key: '/film', expected: null, from: 0, to: null, headers: {}, directives: [], revalidate: null },
  ...{ wantsFullBody: false, continuation: false },
};

let workingDirectory: string;
let server: LinkServer;
let client: StorekeeperClient;
/** The memory tier of the storekeeper, and the worker's view of it; null where bytes go through the socket. */
let memory: { readonly owned: OwnedMemory; readonly mapped: MappedMemory } | null = null;
let nextSlot = 0;
/** What the storekeeper replies to a fetch. */
let reply: (request: FetchRequest) => Promise<MissResult>;

beforeEach(async () => {
  workingDirectory = process.cwd();
  process.chdir(mkdtempSync(join(tmpdir(), 'larder-link-')));
  server = new LinkServer({ clock: systemClock, log: silentLog });
  client = new StorekeeperClient(new BufferPool(), () => memory?.mapped ?? null);
  await listen();
});

const listen = (): Promise<void> =>
  server.listen({
    fetch: async (request) => replyTo(request, await reply(request), () => null),
    update: async () => undefined,
    arePresent: ({ first, last }) => first === last,
    memory: () => memory?.owned.name.inode ?? null,
    ...{ greeting: () => [], onReport: () => undefined, onWorkerGone: () => undefined },
  });

afterEach(async () => {
  await server.close();
  const used = process.cwd();
  process.chdir(workingDirectory);
  rmSync(used, { recursive: true });
});

/** An asset of `bytes` bytes with this stream of them. */
function assetResult(
  bytes: number,
  body: AsyncGenerator<Buffer> | null,
  headers: Record<string, string> = {},
): MissResult {
  const meta = { key: REQUEST.key, version: '"v"', bytes, headers, generatedAtMs: null, holding: null };
  const entry = new MemoryVolume().create(meta, 0);
  return { kind: 'asset', entry, validated: true, forward: FORWARD, body: body === null ? null : placed(body) };
}

/** The same bytes in slots of the memory tier, which get other bytes as soon as the next piece is asked for. */
async function* placed(body: AsyncGenerator<Buffer>): AsyncGenerator<Buffer | BlockSlice> {
  if (memory === null) return yield* body;
  const { owned } = memory;
  for await (const chunk of body) {
    const buffers: Buffer[] = [];
    const slices: SlotSlice[] = [];
    for (let at = 0, bytes = 0; at < chunk.length; at += bytes) {
      const slot = nextSlot % owned.slots;
      nextSlot += 1;
      const from = at % 5;
      bytes = Math.min(chunk.length - at, SLOT_BYTES - from);
      const generation = owned.renew(slot);
      chunk.copy(owned.slot(slot), from, at, at + bytes);
      buffers.push(owned.slot(slot).subarray(from, from + bytes));
      slices.push({ slot, generation, from, bytes });
    }
    yield { length: chunk.length, buffers, slices, isCurrent: () => true };
    for (const { slot } of slices) {
      owned.renew(slot);
      owned.slot(slot).fill('other bytes');
    }
  }
}

async function* inChunks(data: Buffer, sizes: readonly number[]): AsyncGenerator<Buffer> {
  for (let at = 0, piece = 0; at < data.length; piece += 1) {
    const end = Math.min(data.length, at + sizes[piece % sizes.length]!);
    yield data.subarray(at, end);
    at = end;
    if (piece % 3 === 0) await eventLoopRounds(1);
  }
}

async function readAll(body: ByteStream): Promise<ByteSlice[]> {
  const pieces: ByteSlice[] = [];
  for (let piece = await body.next(); piece !== null; piece = await body.next()) pieces.push(piece);
  return pieces;
}

const bytesOf = (pieces: readonly ByteSlice[]): Buffer => Buffer.concat(pieces.map(({ bytes }) => bytes));

describe.each([
  ['through the socket', false, false],
  ['in the memory tier', true, true],
  ['in the memory tier, which the worker has not mapped', true, false],
])('a reply %s', (_, hasMemory, isMapped) => {
  beforeEach(() => {
    if (!hasMemory) return;
    const owned = OwnedMemory.create({ slots: 4_096, slotBytes: SLOT_BYTES })!;
    memory = { owned, mapped: MappedMemory.open(owned.name)! };
    if (!isMapped) client = new StorekeeperClient(new BufferPool(), () => null);
  });

  afterEach(() => {
    memory?.mapped.unmap();
    memory = null;
  });

  test('bytes arrive whole and in order, in chunks of any size, also if the reply ends early', async () => {
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
          // Chunks of a byte or two for all of it would take minutes.
          const data = whole.subarray(0, Math.max(...sizes) < 1_000 ? Math.min(bytes, 2_000) : bytes);
          const sent = data.subarray(0, Math.max(0, data.length - missing));
          reply = async () => assetResult(data.length, inChunks(sent, sizes));
          const { head, body } = await client.fetch(REQUEST);
          expect(head).toMatchObject({ kind: 'asset', body: true, asset: { bytes: data.length } });
          // All slices are held to the end, so a buffer that is used twice is noticed.
          const pieces = await readAll(body);
          expect(bytesOf(pieces).equals(sent)).toBe(true);
          for (const { release } of pieces) release();
        },
      ),
      { numRuns: 60 },
    );
  });

  test('60 concurrent fetches get their own bytes each', async () => {
    reply = async ({ from }) => assetResult(64 * MIB, inChunks(noise(300_000, from as number), [70_001]));
    const fetches = Array.from({ length: 60 }, (_, from) => client.fetch({ ...REQUEST, from, to: from + 300_000 }));
    for (const [from, answer] of (await Promise.all(fetches)).entries())
      expect(bytesOf(await readAll(answer.body)).equals(noise(300_000, from))).toBe(true);
  });

  test('the head of a reply may be long and beyond ASCII', async () => {
    const headers = { 'content-type': 'x'.repeat(150_000), title: 'Käse 🧀\n' };
    reply = async ({ key }) => ({ ...assetResult(5, null, { ...headers, key }) });
    const { head, body } = await client.fetch({ ...REQUEST, key: '/ä/🎬' });
    expect(head).toMatchObject({ kind: 'asset', body: false, asset: { headers: { ...headers, key: '/ä/🎬' } } });
    expect(await body.next()).toBeNull();
  });

  test('a fault arrives with its code and message, and the next fetch is answered', async () => {
    reply = async () => {
      throw new Fault('origin_timeout', 'too late');
    };
    await expect(client.fetch(REQUEST)).rejects.toMatchObject({ code: 'origin_timeout', message: 'too late' });
    expect(await client.arePresent({ id: 1, volume: 0 } as never, [4, 4])).toBe(true);
    expect(await client.arePresent({ id: 1, volume: 0 } as never, [4, 5])).toBe(false);
    await client.update({ kind: 'invalidate', keys: ['/film'] });
  });

  test('closing a reply ends its stream, and the client can fetch again', async () => {
    let streams = 0;
    reply = async () => {
      streams += 1;
      return assetResult(
        1_000 * MIB,
        endless(() => (streams -= 1)),
      );
    };
    const { body } = await client.fetch(REQUEST);
    (await body.next())!.release();
    body.close();
    await until(() => streams === 0);
    reply = async () => assetResult(3, inChunks(Buffer.from('abc'), [3]));
    expect(bytesOf(await readAll((await client.fetch(REQUEST)).body)).toString()).toBe('abc');
  });

  test('of a reply that nobody reads at most two chunks are taken from its source', async () => {
    let given = 0;
    const unread = (): MissResult =>
      assetResult(
        1_000 * MIB,
        endless(
          () => undefined,
          () => (given += 1),
        ),
      );
    reply = async ({ key }) => (key === '/film' ? unread() : assetResult(16 * MIB, inChunks(noise(16 * MIB), [MIB])));
    const { body } = await client.fetch(REQUEST);
    // A reply that is read to its end passes the unread one: by then that would have come too.
    for (const slice of await readAll((await client.fetch({ ...REQUEST, key: '/other' })).body)) slice.release();
    expect(given).toBeLessThanOrEqual(2);
    for (let read = 0; read < 5 * MIB;) {
      const slice = (await body.next())!;
      read += slice.bytes.length;
      slice.release();
    }
    expect(given).toBeGreaterThanOrEqual(5);
    body.close();
  });

  test('a reader that stalls loses its stream, so that it does not hold a block in memory for ever', async () => {
    let ended = false;
    reply = async () =>
      assetResult(
        100 * MIB,
        endless(() => (ended = true)),
      );
    const { head } = await client.fetch(REQUEST);
    expect(head.kind).toBe('asset');
    await until(() => ended);
  });

  test('a reply that breaks off rejects after the bytes that came', async () => {
    const firstRead = deferred();
    async function* broken(): AsyncGenerator<Buffer> {
      yield Buffer.from('first');
      await firstRead.promise;
      throw new Fault('origin_unreachable', 'gone');
    }
    reply = async () => assetResult(MIB, broken());
    const { body } = await client.fetch(REQUEST);
    expect((await body.next())!.bytes.toString()).toBe('first');
    firstRead.resolve();
    await expect(body.next()).rejects.toThrow('closed the connection');
  });
});

test('bytes that have left the memory tier break the reply off, and are not delivered', async () => {
  const owned = OwnedMemory.create({ slots: 4, slotBytes: SLOT_BYTES })!;
  memory = { owned, mapped: MappedMemory.open(owned.name)! };
  reply = async () => assetResult(3 * MIB, inChunks(noise(3 * MIB), [100_000]));
  const stale = (await client.fetch(REQUEST)).body;
  await eventLoopRounds();
  for (const slot of [0, 1, 2, 3]) owned.renew(slot);
  await expect(stale.next()).rejects.toThrow('left the memory tier');
  // A worker whose storekeeper is gone unmaps its memory, and may still hold a reply.
  const { body } = await client.fetch(REQUEST);
  await eventLoopRounds();
  memory.mapped.unmap();
  await expect(body.next()).rejects.toThrow('left the memory tier');
  memory = null;
});

test('without a storekeeper every fetch fails with unreachable, and no block is reported present', async () => {
  reply = async () => assetResult(3, inChunks(Buffer.from('abc'), [3]));
  await readAll((await client.fetch(REQUEST)).body);
  await server.close();
  await eventLoopRounds(1);
  for (let at = 0; at < 3; at += 1) await expect(client.fetch(REQUEST)).rejects.toMatchObject({ code: 'unreachable' });
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

test('a worker that does not forget is killed, and its end is its confirmation; one that does is not waited for', async () => {
  const killed: number[] = [];
  await server.close();
  const timers = new Map<Timer, () => void>();
  const clock: Clock = {
    ...systemClock,
    setTimeout: (run) => {
      const timer = { unref: () => undefined };
      timers.set(timer, run);
      return timer;
    },
    clear: (timer) => void (timer !== null && timers.delete(timer)),
  };
  const expire = (): void => {
    const due = [...timers.values()];
    timers.clear();
    for (const run of due) run();
  };
  server = new LinkServer({ clock, log: silentLog, kill: (pid) => void killed.push(pid) });
  await listen();
  const heard: StorekeeperMessage[] = [];
  const worker = (pid: number, answers: boolean): Socket => {
    const socket = createConnection({ path: LINK_SOCKET }).setEncoding('utf8');
    socket.write(`${JSON.stringify({ kind: 'hello', worker: pid, pid })}\n`);
    const split = lineSplitter((line) => {
      const message = JSON.parse(line) as StorekeeperMessage & { readonly seq: number };
      heard.push(message);
      if (answers)
        for (const kind of ['forgotten', 'closed']) socket.write(`${JSON.stringify({ kind, seq: message.seq })}\n`);
    });
    return socket.on('data', (chunk) => split(String(chunk)));
  };
  const [good, bad] = [worker(1, true), worker(2, false)];
  await until(() => server.workers === 2);
  await eventLoopRounds();
  let forgotten = false;
  const { forgotten: done } = server.broadcast({ keys: [], blocks: [], evicted: [{ volume: 0, id: 1, number: 0 }] });
  void done.then(() => (forgotten = true));
  await until(() => heard.length === 2);
  await eventLoopRounds();
  // The time for it, and the grace after it.
  for (let round = 0; round < 2; round += 1) expire();
  expect([killed, forgotten]).toEqual([[2], false]);
  bad.destroy();
  await until(() => forgotten);
  good.destroy();
});
