// Back-pressure with time limits: waiting for a writable stream without leaking listeners, reading a body without a promise per
// chunk, and destroying a stream whose other side has stalled.

import type { Readable, Writable } from 'node:stream';
import { Fault } from '../protocol/faults.ts';
import { systemClock } from './clock.ts';

/** True while the stream accepts data, otherwise a promise that resolves to true once it drains. False if the stream is closed. */
export function waitWritable(stream: Writable): boolean | Promise<boolean> {
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

/** Like `waitWritable`, but destroys the stream of a reader that reads nothing for `ms`, and resolves to false. */
export async function waitWritableWithin(stream: Writable, ms: number): Promise<boolean> {
  const writable = waitWritable(stream);
  if (typeof writable === 'boolean') return writable;
  const stalled = systemClock.setTimeout(() => stream.destroy(), ms);
  const alive = await writable;
  systemClock.clear(stalled);
  return alive;
}

/**
 * Writes the chunks. True if the kernel accepted them at once, which is the common case, otherwise a promise that resolves to true
 * once it has. Destroys the stream of a reader that reads nothing for `ms`, and resolves to false.
 */
export function writeWithin(stream: Writable, chunks: readonly Buffer[], ms: number): boolean | Promise<boolean> {
  if (stream.destroyed) return false;
  let onWritten = (): void => undefined;
  stream.cork();
  for (const [at, chunk] of chunks.entries())
    stream.write(chunk, at === chunks.length - 1 ? () => onWritten() : undefined);
  stream.uncork();
  if (stream.writableLength === 0) return true;
  return new Promise((resolve) => {
    onWritten = () => {
      systemClock.clear(stalled);
      stream.off('close', onWritten);
      // A destroyed stream also calls back for chunks that it has not written.
      resolve(!stream.destroyed);
    };
    const stalled = systemClock.setTimeout(() => stream.destroy(), ms);
    stream.on('close', onWritten);
  });
}

/**
 * Passes every chunk of a body to `onChunk` as it arrives, without a promise per chunk. The body is paused while `onChunk` is
 * pending, and destroyed once it returns or resolves to false. Rejects with the error that ended the body early.
 */
export function consume(body: Readable, onChunk: (chunk: Buffer) => boolean | Promise<boolean>): Promise<void> {
  return new Promise((resolve, reject) => {
    const onClose = (): void => reject(body.errored ?? new Error('the body was closed'));
    if (body.destroyed) return onClose();
    const resume = (more: boolean): void => {
      if (more) return void body.resume();
      resolve();
      body.destroy();
    };
    const fail = (error: unknown): void => void body.destroy(error as Error);
    body.on('data', (chunk: Buffer) => {
      // A destroyed body may still emit buffered chunks.
      if (body.destroyed) return;
      try {
        const accepted = onChunk(chunk);
        if (accepted === true) return;
        body.pause();
        if (accepted === false) resume(false);
        else accepted.then(resume, fail);
      } catch (error) {
        fail(error);
      }
    });
    body.on('error', reject);
    body.on('end', resolve);
    body.on('close', onClose);
  });
}

/** The chunks of a request body. Throws `request_timeout` if none arrives for `ms`. */
export async function* withIdleTimeout(body: Readable, ms: number): AsyncGenerator<Buffer> {
  const expire = (): void => {
    body.destroy(new Fault('request_timeout', `no byte of the request's body came for ${ms / 1000} s`));
  };
  let idle = systemClock.setTimeout(expire, ms);
  try {
    for await (const chunk of body) {
      systemClock.clear(idle);
      yield chunk as Buffer;
      idle = systemClock.setTimeout(expire, ms);
    }
  } finally {
    systemClock.clear(idle);
  }
}

/** Aborts a fetch whose response has not begun after `ms`. The body of the response is not limited. */
export async function withResponseTimeout<T>(ms: number, fetch: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const abort = (): void => controller.abort(new DOMException(`no answer in ${ms} ms`, 'TimeoutError'));
  const timeout = systemClock.setTimeout(abort, ms);
  try {
    return await fetch(controller.signal);
  } finally {
    systemClock.clear(timeout);
  }
}
