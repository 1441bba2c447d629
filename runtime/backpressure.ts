// Bytes with back-pressure: written without a listener left behind per wait, read without a promise per chunk; how long one waits
// for another side; and places for so many at once.

import type { Readable, Writable } from 'node:stream';
import { Fault } from '../protocol/faults.ts';

/** Resolves at once while there is room, else when the reader took enough; false when it has left. */
export function room(stream: Writable): boolean | Promise<boolean> {
  if (stream.destroyed) return false;
  if (!stream.writableNeedDrain) return true;
  return new Promise((resolve) => {
    const settle = (alive: boolean): void => {
      stream.off('drain', onDrain);
      stream.off('close', onClose);
      resolve(alive);
    };
    const onDrain = (): void => settle(true);
    const onClose = (): void => settle(false);
    stream.on('drain', onDrain);
    stream.on('close', onClose);
  });
}

/** As `room`, but a reader that takes nothing for so long is let go: false. */
export async function roomWithin(stream: Writable, ms: number): Promise<boolean> {
  const free = room(stream);
  if (typeof free === 'boolean') return free;
  const stalled = setTimeout(() => stream.destroy(), ms);
  const alive = await free;
  clearTimeout(stalled);
  return alive;
}

/** True when the system has taken the chunks, as it mostly does at once; a reader that takes none for so long is let go: false. */
export function written(stream: Writable, chunks: readonly Buffer[], ms: number): boolean | Promise<boolean> {
  if (stream.destroyed) return false;
  let left = (): void => undefined;
  stream.cork();
  for (const [at, chunk] of chunks.entries()) stream.write(chunk, at === chunks.length - 1 ? () => left() : undefined);
  stream.uncork();
  if (stream.writableLength === 0) return true;
  return new Promise((resolve) => {
    left = () => {
      clearTimeout(stalled);
      stream.off('close', left);
      // A stream that was destroyed says of what it still held that it was written.
      resolve(!stream.destroyed);
    };
    const stalled = setTimeout(() => stream.destroy(), ms);
    stream.on('close', left);
  });
}

/**
 * Every chunk of a body on the spot, without a promise for each; the body waits while `take` does, and is let go where that
 * says false. Throws what breaks the body off.
 */
export function pour(body: Readable, take: (chunk: Buffer) => boolean | Promise<boolean>): Promise<void> {
  return new Promise((resolve, reject) => {
    const gone = (): void => reject(body.errored ?? new Error('the body was let go'));
    if (body.destroyed) return gone();
    const goOn = (more: boolean): void => {
      if (more) return void body.resume();
      resolve();
      body.destroy();
    };
    const fail = (error: unknown): void => void body.destroy(error as Error);
    body.on('data', (chunk: Buffer) => {
      // What was buffered when the body was let go is still told of.
      if (body.destroyed) return;
      try {
        const taken = take(chunk);
        if (taken === true) return;
        body.pause();
        if (taken === false) goOn(false);
        else taken.then(goOn, fail);
      } catch (error) {
        fail(error);
      }
    });
    body.on('error', reject);
    body.on('end', resolve);
    body.on('close', gone);
  });
}

/** A body as it comes. Throws `body_late` where it pauses for so long. */
export async function* steady(body: Readable, ms: number): AsyncGenerator<Buffer> {
  const late = (): void => {
    body.destroy(new Fault('body_late', `no byte of the request's body came for ${ms / 1000} s`));
  };
  let pause = setTimeout(late, ms);
  try {
    for await (const chunk of body) {
      clearTimeout(pause);
      yield chunk as Buffer;
      pause = setTimeout(late, ms);
    }
  } finally {
    clearTimeout(pause);
  }
}

/** Gives up what has not begun to answer by then; what has may take its time. */
export async function answeredWithin<T>(ms: number, fetch: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const patience = new AbortController();
  const late = setTimeout(() => patience.abort(new DOMException(`no answer in ${ms} ms`, 'TimeoutError')), ms);
  try {
    return await fetch(patience.signal);
  } finally {
    clearTimeout(late);
  }
}

/** So many at once; so many wait, each so long. */
export class Places {
  readonly #spec: { readonly most: number; readonly waitingMost: number; readonly waitMs: number };
  readonly #waiting = new Set<() => void>();
  #taken = 0;

  constructor(spec: { readonly most: number; readonly waitingMost: number; readonly waitMs: number }) {
    this.#spec = spec;
  }

  /** Resolves when there is a place; it must be left. Throws `overloaded`. */
  async take(): Promise<void> {
    const { most, waitingMost, waitMs } = this.#spec;
    if (this.#taken < most) {
      this.#taken += 1;
      return;
    }
    if (this.#waiting.size >= waitingMost)
      throw new Fault('overloaded', `${most} requests pass through to the origin and ${waitingMost} wait`);
    await new Promise<void>((resolve, reject) => {
      const called = (): void => {
        clearTimeout(tired);
        resolve();
      };
      const tired = setTimeout(() => {
        this.#waiting.delete(called);
        reject(
          new Fault('overloaded', `${most} requests pass through to the origin; none ended in ${waitMs / 1000} s`),
        );
      }, waitMs);
      this.#waiting.add(called);
    });
  }

  /** The place goes to whoever has waited longest. */
  leave(): void {
    const [next] = this.#waiting;
    if (next === undefined) this.#taken -= 1;
    else {
      this.#waiting.delete(next);
      next();
    }
  }
}
