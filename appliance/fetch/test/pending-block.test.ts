// The memory in which a block is received: when it may be used for the next block, and when a reader may still hold a piece of it.

import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { BLOCK_BYTES, CHUNK_BYTES, payloadOf } from '../../store/block-file.ts';
import { HeapBuffers, type BlockSlice, type ReceiveBuffer } from '../../store/receive-buffer.ts';
import type { Entry } from '../../store/volume.ts';
import { noise } from '../../test/rig.ts';
import { eventLoopRounds } from '../../test/waiting.ts';
import { PendingBlock } from '../pending-block.ts';
import { bytesOf } from './inflight-rig.ts';

const STORED = { stored: true, kept: null };
const heap = new HeapBuffers();

/** A block that has been received whole, filled with `byte`. */
function received(byte: number): PendingBlock {
  const pending = new PendingBlock(0, BLOCK_BYTES);
  pending.append(Buffer.alloc(BLOCK_BYTES, byte), () => heap.receive(BLOCK_BYTES));
  return pending;
}

const isFilledWith = (piece: BlockSlice, byte: number): boolean => bytesOf(piece).every((each) => each === byte);

test('a buffer is reused only when no reader can hold a piece of it', async () => {
  const first = received(1);
  const reader = first.follow(0, BLOCK_BYTES);
  const leaver = first.follow(0, 10);
  const piece: BlockSlice = (await reader.next()).value;
  const sending: BlockSlice = (await leaver.next()).value;
  await leaver.return(undefined);
  first.finish(STORED);
  received(2);
  expect(isFilledWith(piece, 1)).toBe(true);

  expect((await reader.next()).done).toBe(true);
  received(3);
  // The reader that left before the end may have had its piece on its way to a socket.
  expect(isFilledWith(sending, 1)).toBe(true);
});

test('the buffer of a finished block whose readers are done holds the next block', async () => {
  for (const stored of [true, false]) {
    const first = received(1);
    const pieces: BlockSlice[] = [];
    for await (const piece of first.follow(0, BLOCK_BYTES)) pieces.push(piece);
    first.finish({ stored, kept: null });
    received(2);
    expect(isFilledWith(pieces[0]!, 2)).toBe(true);
  }
});

test('a reader of a block holds all blocks that are chained behind it, as far as it goes', async () => {
  const buffers = [1, 2, 3].map(() => new TestBuffer());
  const blocks = buffers.map((buffer) => inSlots(buffer));
  const [first, second, third] = blocks;
  first!.chain(second!);
  second!.chain(third!);
  const released = (): number[] => buffers.map(({ events }) => events.length);
  const [reader, leaver] = [first!.follow(0, BLOCK_BYTES), first!.follow(0, BLOCK_BYTES)];
  for (const block of blocks) block.finish({ stored: false, kept: null });
  await leaver.next();
  await leaver.return(undefined);
  await eventLoopRounds(1);
  expect(released()).toEqual([0, 0, 0]);
  for await (const _ of reader);
  const next = first!.next!.follow(0, 10);
  await eventLoopRounds(1);
  expect(released()).toEqual([1, 0, 0]);
  for await (const _ of next);
  await eventLoopRounds(2);
  expect(released()).toEqual([1, 1, 1]);
});

test('a reader slower than the disk is sent to the block file, and the buffer is free', async () => {
  const pending = received(1);
  const reader = pending.follow(0, BLOCK_BYTES);
  const piece: BlockSlice = (await reader.next()).value;
  expect(piece.length).toBeLessThan(BLOCK_BYTES);
  pending.finish(STORED);
  expect((await reader.next()).done).toBe(true);
  received(2);
  expect(isFilledWith(piece, 2)).toBe(true);

  // A reader near the end gets the rest: opening a file for that would cost more.
  const other = received(3);
  const tail = other.follow(BLOCK_BYTES - 700_000, BLOCK_BYTES);
  let bytes = ((await tail.next()).value as BlockSlice).length;
  other.finish(STORED);
  for await (const rest of tail) bytes += rest.length;
  expect(bytes).toBe(700_000);
});

test('checksums and digest are those of the whole block, however its bytes arrive, and are there also when it is stored late', () => {
  const body = noise(BLOCK_BYTES - 5_000);
  for (const storable of [true, false]) {
    const pending = new PendingBlock(0, body.length);
    pending.decide({ storable, digested: true });
    for (let at = 0, size = 1; at < body.length; at += size, size = Math.min(size * 3, 200_000))
      pending.append(body.subarray(at, at + size), () => heap.receive(body.length));
    expect(pending.digest()).toBe(createHash('sha256').update(body).digest('hex'));
    expect(pending.payload.crcs).toEqual(payloadOf(body).crcs);
    expect(Buffer.concat(pending.payload.chunks).equals(body)).toBe(true);
  }
});

/** Slots of which all have other bytes once `isRenewed` is set. */
class TestBuffer implements ReceiveBuffer {
  readonly chunks = Array.from({ length: BLOCK_BYTES / CHUNK_BYTES }, () => Buffer.alloc(CHUNK_BYTES));
  readonly slots = this.chunks.map((_, slot) => ({ slot, generation: 7 }));
  readonly events: string[] = [];
  isRenewed = false;
  readonly holds = (): boolean => !this.isRenewed;
  keep(): void {
    this.events.push('kept');
  }
  release(): void {
    this.events.push('released');
  }
}

function inSlots(buffer: ReceiveBuffer): PendingBlock {
  const pending = new PendingBlock(0, BLOCK_BYTES);
  pending.append(noise(BLOCK_BYTES), () => buffer);
  return pending;
}

test('a reader is told the slots, and ends early when they have other bytes', async () => {
  const buffer = new TestBuffer();
  const pending = inSlots(buffer);
  const reader = pending.follow(100_000, BLOCK_BYTES);
  const { length, slices } = (await reader.next()).value as BlockSlice;
  expect(slices![0]).toEqual({ slot: 1, generation: 7, from: 100_000 - CHUNK_BYTES, bytes: 2 * CHUNK_BYTES - 100_000 });
  expect(slices!.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(length);
  const tail = pending.follow(BLOCK_BYTES - 10, BLOCK_BYTES);
  pending.finish({ stored: true, kept: {} as Entry });
  buffer.isRenewed = true;
  expect([(await reader.next()).done, (await tail.next()).done]).toEqual([true, true]);
  expect(buffer.events).toEqual(['kept']);
});

test('slots are released once: when the block is not kept, and its readers have gone, in whatever way', async () => {
  for (const ending of ['finish', 'fail'] as const) {
    const buffer = new TestBuffer();
    const pending = inSlots(buffer);
    const [leaver, reader] = [pending.follow(0, BLOCK_BYTES), pending.follow(0, BLOCK_BYTES)];
    await leaver.next();
    await reader.next();
    if (ending === 'finish') pending.finish({ stored: false, kept: null });
    else pending.fail(new Error('gone') as never);
    await leaver.return(undefined);
    expect(buffer.events).toEqual([]);
    for await (const _ of reader);
    expect(buffer.events).toEqual(['released']);
    pending.finish({ stored: false, kept: null });
    expect(buffer.events).toEqual(['released']);
  }
});
