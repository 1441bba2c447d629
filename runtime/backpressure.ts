// Streams with back-pressure, bounded in time: writing without a listener left behind per wait, reading without a promise per
// chunk, and giving up on a side that has stalled.

import type { Readable, Writable } from 'node:stream';
import { Fault } from '../protocol/faults.ts';
import { systemClock } from './clock.ts';

/** True while the stream has room, or a promise that resolves to true once it drains. False when the stream is closed. */
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

/** As `waitWritable`, but a reader that takes nothing for `ms` loses its stream: false. */
export async function waitWritableWithin(stream: Writable, ms: number): Promise<boolean> {
  const writable = waitWritable(stream);
  if (typeof writable === 'boolean') return writable;
  const stalled = systemClock.setTimeout(() => stream.destroy(), ms);
  const alive = await writable;
  systemClock.clear(stalled);
  return alive;
}

/** True when the kernel has taken the chunks, as it mostly does at once. A reader that takes none for `ms` loses its stream: false. */
export function writeWithin(stream: Writable, chunks: readonly Buffer[], ms: number): boolean | Promise<boolean> {
  if (stream.destroyed) return false;
  let taken = (): void => undefined;
  stream.cork();
  for (const [at, chunk] of chunks.entries()) stream.write(chunk, at === chunks.length - 1 ? () => taken() : undefined);
  stream.uncork();
  if (stream.writableLength === 0) return true;
  return new Promise((resolve) => {
    taken = () => {
      systemClock.clear(stalled);
      stream.off('close', taken);
      // A destroyed stream calls back for the chunks that it never wrote, too.
      resolve(!stream.destroyed);
    };
    const stalled = systemClock.setTimeout(() => stream.destroy(), ms);
    stream.on('close', taken);
  });
}

/**
 * Hands every chunk of a body to `take` as it arrives, without a promise for each. The body pauses while `take` waits and is
 * destroyed when it resolves to false. Rejects with the error that breaks the body off.
 */
export function consume(body: Readable, take: (chunk: Buffer) => boolean | Promise<boolean>): Promise<void> {
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
      // A destroyed body still emits what it had buffered.
      if (body.destroyed) return;
      try {
        const taken = take(chunk);
        if (taken === true) return;
        body.pause();
        if (taken === false) resume(false);
        else taken.then(resume, fail);
      } catch (error) {
        fail(error);
      }
    });
    body.on('error', reject);
    body.on('end', resolve);
    body.on('close', onClose);
  });
}

/** A request's body as it comes. Throws `request_timeout` when no byte comes for `ms`. */
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

/** Aborts a fetch whose response has not begun after `ms`; its body may take its time. */
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
