// Bytes on their way to a client, one borrowed buffer at a time.

import type { Readable } from 'node:stream';

export interface ByteSlice {
  readonly bytes: Buffer;
  /** To be called once the bytes have been sent: their buffer is reused. */
  readonly release: () => void;
}

/** Slices in order. */
export interface ByteStream {
  /** The bytes that have arrived; null at the end. Rejects when the stream breaks off. */
  next(): Promise<ByteSlice | null>;
  /** Ends the stream before its end. */
  close(): void;
}

const noop = (): void => undefined;

/** A stream over a body whose chunks belong to nobody else. */
export function byteStreamOf(body: Readable): ByteStream {
  body.on('error', noop);
  const chunks = (body as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
  return {
    next: async () => {
      const { done, value } = await chunks.next();
      return done === true ? null : { bytes: value, release: noop };
    },
    close: () => void body.destroy(),
  };
}

/** Copies of the slices, for a consumer that keeps one while it asks for the next. */
export async function* copiesOfSlices(stream: ByteStream): AsyncGenerator<Buffer> {
  try {
    for (let slice = await stream.next(); slice !== null; slice = await stream.next()) {
      const copy = Buffer.from(slice.bytes);
      slice.release();
      yield copy;
    }
  } finally {
    stream.close();
  }
}
