// Requests of one connection take turns. node:http hands over every pipelined request at once; an answer that is not yet its
// turn would hold a file, a buffer and a stream, and is never told when the connection ends. Waiting ones hold nothing.

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

/** Requests of one connection that wait; a client that sends more is cut off. */
const PIPELINED_MAX = 128;

interface Turn {
  last: ServerResponse;
  waiting: number;
}

export class PipelineQueue {
  readonly #turns = new WeakMap<Socket, Turn>();

  /** Calls `serve` once every earlier answer of the connection is sent; never if the connection ends before. */
  enqueue(request: IncomingMessage, response: ServerResponse, serve: () => void): void {
    const { socket } = request;
    const turn = this.#turns.get(socket);
    if (turn === undefined) this.#turns.set(socket, { last: response, waiting: 0 });
    if (turn === undefined) return serve();
    const before = turn.last;
    turn.last = response;
    if (before.closed) return serve();
    if (turn.waiting >= PIPELINED_MAX) {
      socket.destroy();
      return;
    }
    turn.waiting += 1;
    before.once('close', () => {
      turn.waiting -= 1;
      if (!socket.destroyed) serve();
    });
  }
}
