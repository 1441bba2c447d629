// Answers requests in the order of their arrival. epoll reports ready connections in the order in which they last became
// ready, so a request that arrives just after a turn of the event loop has begun would wait for all others twice. Here
// requests are queued as they are read and a few are answered per turn; between turns the event loop reads new ones.

/** Tail latency at 70 % load with 64 clients: p99 2.2 ms with 16 per turn, 2.3 ms with 8, 2.7 ms without a limit. */
const ANSWERS_PER_TURN = 16;

export interface QueuedRequest {
  /** Called when the request is at the head of the queue. */
  answer(): void;
}

export class RequestQueue {
  /** Filled by `add`, and swapped with `#draining` when that is empty, so that no array is shifted. */
  #filling: QueuedRequest[] = [];
  #draining: QueuedRequest[] = [];
  /** Next index in `#draining`. */
  #position = 0;
  #isScheduled = false;

  add(request: QueuedRequest): void {
    this.#filling.push(request);
    if (!this.#isScheduled) setImmediate(this.#answerSome);
    this.#isScheduled = true;
  }

  readonly #answerSome = (): void => {
    for (let answers = 0; answers < ANSWERS_PER_TURN; answers += 1) {
      const request = this.#dequeue();
      if (request === undefined) {
        this.#isScheduled = false;
        return;
      }
      request.answer();
    }
    setImmediate(this.#answerSome);
  };

  #dequeue(): QueuedRequest | undefined {
    if (this.#position === this.#draining.length) {
      const drained = this.#draining;
      drained.length = 0;
      this.#draining = this.#filling;
      this.#filling = drained;
      this.#position = 0;
    }
    const request = this.#draining[this.#position];
    if (request !== undefined) this.#position += 1;
    return request;
  }
}
