// Bytes on their way to a player, a piece of a borrowed buffer at a time.

import type { Readable } from 'node:stream';

export interface ByteSlice {
  readonly bytes: Buffer;
  /** The bytes have been sent: their buffer may be used again. */
  readonly release: () => void;
}

/** Pieces in order, from somewhere else. */
export interface ByteStream {
  /** As much as has come; null at the end. Rejects where it breaks off. */
  next(): Promise<ByteSlice | null>;
  /** Nobody wants the rest. */
  close(): void;
}

const nothing = (): void => undefined;

/** Of a body whose chunks are nobody else's. */
export function byteStreamOf(body: Readable): ByteStream {
  body.on('error', nothing);
  const chunks = (body as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
  return {
    next: async () => {
      const { done, value } = await chunks.next();
      return done === true ? null : { bytes: value, release: nothing };
    },
    close: () => void body.destroy(),
  };
}

/** For those who keep what they got while they ask for more. */
export async function* copiesOfSlices(pieces: ByteStream): AsyncGenerator<Buffer> {
  try {
    for (let piece = await pieces.next(); piece !== null; piece = await pieces.next()) {
      const copy = Buffer.from(piece.bytes);
      piece.release();
      yield copy;
    }
  } finally {
    pieces.close();
  }
}
