// Writing with back-pressure, without leaving a listener behind per wait.

import type { Writable } from 'node:stream';

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
