import { expect, test } from 'vitest';
import { BLOCK_BYTES } from '../../store/block-file.ts';
import { PendingBlock } from '../pending-block.ts';

function landed(byte: number): PendingBlock {
  const pending = new PendingBlock(0, BLOCK_BYTES);
  pending.append(Buffer.alloc(BLOCK_BYTES, byte));
  return pending;
}

test('a buffer is used again only when nobody can have a piece of it in hand', async () => {
  const first = landed(1);
  const read = first.follow(0, BLOCK_BYTES);
  const left = first.follow(0, 10);
  const piece: Buffer = (await read.next()).value;
  const underWay: Buffer = (await left.next()).value;
  await left.return(undefined);
  first.finish(true);
  landed(2);
  expect(piece.every((byte) => byte === 1)).toBe(true);

  expect((await read.next()).done).toBe(true);
  landed(3);
  // Who left before the end may have had it on its way to a socket.
  expect(underWay.every((byte) => byte === 1)).toBe(true);
});

test('the buffer of a stored block whose readers are done holds the next block', async () => {
  const first = landed(1);
  const pieces: Buffer[] = [];
  for await (const piece of first.follow(0, BLOCK_BYTES)) pieces.push(piece);
  first.finish(true);
  landed(2);
  expect(pieces[0]![0]).toBe(2);
});

test('what was not stored, or is read on from block to block, keeps its buffer', async () => {
  const unstored = landed(1);
  unstored.finish(false);
  const [one, next] = [landed(2), landed(3)];
  one.chain(next);
  next.finish(true);
  landed(4);
  for (const [pending, byte] of [
    [unstored, 1],
    [next, 3],
  ] as const)
    expect((await pending.follow(0, BLOCK_BYTES).next()).value![0]).toBe(byte);
});

test('who is slower than the disk is left to it, and the buffer is free', async () => {
  const pending = landed(1);
  const read = pending.follow(0, BLOCK_BYTES);
  const piece: Buffer = (await read.next()).value;
  expect(piece.length).toBeLessThan(BLOCK_BYTES);
  pending.finish(true);
  expect((await read.next()).done).toBe(true);
  landed(2);
  expect(piece[0]).toBe(2);

  // Nearly at the end it gets the rest: to open a file for that would cost more.
  const other = landed(3);
  const tail = other.follow(BLOCK_BYTES - 300_000, BLOCK_BYTES);
  let bytes = ((await tail.next()).value as Buffer).length;
  other.finish(true);
  for await (const rest of tail) bytes += rest.length;
  expect(bytes).toBe(300_000);
});
