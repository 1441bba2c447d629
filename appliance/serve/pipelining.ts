// Pipelined requests of one connection are answered one after another. node:http hands over every pipelined request at once. A response
// whose turn has not come would hold a file, a buffer and a stream, and would not be told when the connection ends; a request that waits
// here holds nothing.

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { LIMITS } from '../limits.ts';

interface ConnectionQueue {
  last: ServerResponse;
  waiting: number;
}

export class PipelineQueue {
  readonly #queues = new WeakMap<Socket, ConnectionQueue>();

  /**
   * Calls `serve` once every earlier response of the connection has been sent; never if the connection ends before. A client that
   * pipelines more than the maximum loses its connection.
   */
  enqueue(request: IncomingMessage, response: ServerResponse, serve: () => void): void {
    const { socket } = request;
    const queue = this.#queues.get(socket);
    if (queue === undefined) {
      this.#queues.set(socket, { last: response, waiting: 0 });
      return serve();
    }
    const before = queue.last;
    queue.last = response;
    if (before.closed) return serve();
    if (queue.waiting >= LIMITS.pipelinedMax) {
      socket.destroy();
      return;
    }
    queue.waiting += 1;
    before.once('close', () => {
      queue.waiting -= 1;
      if (!socket.destroyed) serve();
    });
  }
}
