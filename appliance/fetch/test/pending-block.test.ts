// The buffer of a block that is being received: when it may be reused for the next block, and when a reader may still hold a
// piece of it.

import { expect, test } from 'vitest';
import { BLOCK_BYTES } from '../../store/block-file.ts';
import { PendingBlock } from '../pending-block.ts';

/** A block that has been received whole, filled with `byte`. */
function received(byte: number): PendingBlock {
  const pending = new PendingBlock(0, BLOCK_BYTES);
  pending.append(Buffer.alloc(BLOCK_BYTES, byte));
  return pending;
}

test('a buffer is reused only when no reader can hold a piece of it', async () => {
  const first = received(1);
  const reader = first.follow(0, BLOCK_BYTES);
  const leaver = first.follow(0, 10);
  const piece: Buffer = (await reader.next()).value;
  const sending: Buffer = (await leaver.next()).value;
  await leaver.return(undefined);
  first.finish(true);
  received(2);
  expect(piece.every((byte) => byte === 1)).toBe(true);

  expect((await reader.next()).done).toBe(true);
  received(3);
  // The reader that left before the end may have had its piece on its way to a socket.
  expect(sending.every((byte) => byte === 1)).toBe(true);
});

test('the buffer of a stored block whose readers are done holds the next block', async () => {
  const first = received(1);
  const pieces: Buffer[] = [];
  for await (const piece of first.follow(0, BLOCK_BYTES)) pieces.push(piece);
  first.finish(true);
  received(2);
  expect(pieces[0]![0]).toBe(2);
});

test('a block that was not stored, or that is chained to the next one, keeps its buffer', async () => {
  const unstored = received(1);
  unstored.finish(false);
  const [one, next] = [received(2), received(3)];
  one.chain(next);
  next.finish(true);
  received(4);
  for (const [pending, byte] of [
    [unstored, 1],
    [next, 3],
  ] as const)
    expect((await pending.follow(0, BLOCK_BYTES).next()).value![0]).toBe(byte);
});

test('a reader slower than the disk is sent to the block file, and the buffer is free', async () => {
  const pending = received(1);
  const reader = pending.follow(0, BLOCK_BYTES);
  const piece: Buffer = (await reader.next()).value;
  expect(piece.length).toBeLessThan(BLOCK_BYTES);
  pending.finish(true);
  expect((await reader.next()).done).toBe(true);
  received(2);
  expect(piece[0]).toBe(2);

  // A reader near the end gets the rest: opening a file for that would cost more.
  const other = received(3);
  const tail = other.follow(BLOCK_BYTES - 300_000, BLOCK_BYTES);
  let bytes = ((await tail.next()).value as Buffer).length;
  other.finish(true);
  for await (const rest of tail) bytes += rest.length;
  expect(bytes).toBe(300_000);
});
