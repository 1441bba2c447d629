// A worker's end of the two sockets: asks for bytes that are not on disk, reports what it served, forgets what it is told to.

import { createConnection, type Socket } from 'node:net';
import type { Dispatcher, Pool } from 'undici';
import { Fault, FAULTS, isFault, type FaultCode } from '../protocol/faults.ts';
import type { Log } from '../runtime/log.ts';
import { undici } from '../runtime/undici.ts';
import {
  HEAD_BYTES_MAX,
  HEAD_FIELD,
  headerSafe,
  LINK_SOCKET,
  lineSplitter,
  READ_SOCKET,
  type Ask,
  type AssetView,
  type DownMessage,
  type Head,
  type Look,
  type Told,
  type UpMessage,
} from './link.ts';

const READS_MAX = 1_024;
const RECONNECT_MS = 20;

export interface Answer {
  readonly head: Head;
  readonly body: Dispatcher.ResponseData['body'];
}

export class ReadClient {
  #pool: Pool | null = null;

  /** Throws the fault that the storekeeper answered, or `unreachable` where it is down. */
  async read(ask: Ask): Promise<Answer> {
    const response = await this.#send('/read', ask);
    const field = response.headers[HEAD_FIELD];
    if (typeof field !== 'string') {
      await response.body.dump();
      throw new Fault('internal', `the storekeeper answered ${response.statusCode} without a head`);
    }
    const head = JSON.parse(field) as Head;
    if (head.kind !== 'fault') return { head, body: response.body };
    await response.body.dump();
    throw new Fault(head.code in FAULTS ? (head.code as FaultCode) : 'internal', head.message);
  }

  /** Resolves when what was told counts. Throws `unreachable`. */
  async tell(told: Told): Promise<void> {
    await (await this.#send('/told', told)).body.dump();
  }

  /** Whether all of these blocks are on disk; false where nobody knows. */
  async present({ id, volume }: AssetView, [first, last]: readonly [number, number]): Promise<boolean> {
    const look: Look = { id, volume, first, last };
    try {
      const answer = await this.#send('/present', look);
      await answer.body.dump();
      return answer.statusCode === 204;
    } catch (error) {
      if (isFault(error)) return false;
      throw error;
    }
  }

  async #send(path: string, message: Ask | Told | Look): Promise<Dispatcher.ResponseData> {
    this.#pool ??= new (undici().Pool)('http://storekeeper', {
      socketPath: READ_SOCKET,
      connections: READS_MAX,
      headersTimeout: 60_000,
      bodyTimeout: 60_000,
      maxHeaderSize: HEAD_BYTES_MAX,
    });
    try {
      return await this.#pool.request({ method: 'GET', path, headers: { [HEAD_FIELD]: headerSafe(message) } });
    } catch (error) {
      throw new Fault('unreachable', 'the storekeeper is not there', { cause: error });
    }
  }
}

export interface LinkDeps {
  readonly worker: number;
  /** Resolves when nothing of it is held any more. */
  readonly forget: (message: DownMessage) => Promise<void>;
  /** The storekeeper is new or was away: nothing that was learnt from it counts. */
  readonly onLinked: () => void;
  readonly log: Log;
}

/** Holds the line to the storekeeper for as long as the worker lives. */
export class Link {
  readonly #deps: LinkDeps;
  #socket: Socket | null = null;

  constructor(deps: LinkDeps) {
    this.#deps = deps;
    this.#connect();
  }

  get up(): boolean {
    return this.#socket !== null;
  }

  /** False where nobody listens: the caller keeps what it had to say. */
  send(message: UpMessage): boolean {
    return (
      this.#socket !== null && !this.#socket.destroyed && (this.#socket.write(`${JSON.stringify(message)}\n`), true)
    );
  }

  #connect(): void {
    const socket = createConnection({ path: LINK_SOCKET });
    socket.setEncoding('utf8');
    socket.on('connect', () => {
      this.#socket = socket;
      this.#deps.onLinked();
      this.send({ kind: 'hello', worker: this.#deps.worker });
    });
    const split = lineSplitter((line) => {
      const message = JSON.parse(line) as DownMessage;
      void this.#deps.forget(message).then(() => this.send({ kind: 'forgotten', seq: message.seq }));
    });
    socket.on('data', (chunk) => split(String(chunk)));
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#socket = null;
      setTimeout(() => this.#connect(), RECONNECT_MS).unref();
    });
  }
}
