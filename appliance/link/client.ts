// A worker's end of the two sockets: asks for bytes that are not on disk, reports what it served, forgets what it is told to.

import { createConnection, type Socket } from 'node:net';
import { Fault, FAULTS, isFault, type FaultCode } from '../../protocol/faults.ts';
import type { Log } from '../../runtime/log.ts';
import type { AssetView } from '../http/asset.ts';
import { lineSplitter } from './framing.ts';
import {
  LINK_SOCKET,
  type FetchRequest,
  type StorekeeperMessage,
  type PresenceQuery,
  type LinkRequest,
  type CacheUpdate,
  type WorkerMessage,
} from './messages.ts';
import { LinkConnection, type FetchReply } from './connection.ts';
import type { BufferPool } from '../io/buffer-pool.ts';

/** Answers under way at once; who asks beyond them waits. */
const READS_MAX = 1_024;
const RECONNECT_MS = 20;

export class StorekeeperClient {
  readonly #pool: BufferPool;
  readonly #idle: LinkConnection[] = [];
  readonly #waiting: ((connection: LinkConnection) => void)[] = [];
  #connections = 0;

  constructor(pool: BufferPool) {
    this.#pool = pool;
  }

  /** Throws the fault that the storekeeper answered, or `unreachable` where it is down. */
  fetch(ask: FetchRequest): Promise<FetchReply> {
    return this.#ask({ kind: 'read', ask });
  }

  /** Resolves when what was told counts. Throws `unreachable`. */
  async update(told: CacheUpdate): Promise<void> {
    await this.#ask({ kind: 'update', told });
  }

  /** Whether all of these blocks are on disk; false where nobody knows. */
  async arePresent({ id, volume }: AssetView, [first, last]: readonly [number, number]): Promise<boolean> {
    const look: PresenceQuery = { id, volume, first, last };
    try {
      const { head } = await this.#ask({ kind: 'present', look });
      return head.kind === 'present' && head.all;
    } catch (error) {
      if (isFault(error)) return false;
      throw error;
    }
  }

  async #ask(question: LinkRequest): Promise<FetchReply> {
    const connection = this.#idle.pop() ?? (await this.#another());
    let answer: FetchReply;
    try {
      answer = await connection.request(question);
    } catch (error) {
      throw new Fault('unreachable', 'the storekeeper is not there', { cause: error });
    }
    const { head } = answer;
    if (head.kind !== 'fault') return answer;
    throw new Fault(head.code in FAULTS ? (head.code as FaultCode) : 'internal', head.message);
  }

  #another(): LinkConnection | Promise<LinkConnection> {
    if (this.#connections < READS_MAX) return this.#connect();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #connect(): LinkConnection {
    this.#connections += 1;
    return new LinkConnection(this.#pool, {
      idle: (connection) => {
        const next = this.#waiting.shift();
        if (next === undefined) this.#idle.push(connection);
        else next(connection);
      },
      closed: (connection) => {
        this.#connections -= 1;
        const at = this.#idle.indexOf(connection);
        if (at >= 0) this.#idle.splice(at, 1);
        this.#waiting.shift()?.(this.#connect());
      },
    });
  }
}

export interface WorkerLinkDeps {
  readonly worker: number;
  /** Resolves when nothing of it is held any more. */
  readonly invalidate: (message: StorekeeperMessage) => Promise<void>;
  /** The storekeeper is new or was away: nothing that was learnt from it counts. */
  readonly onLinked: () => void;
  readonly log: Log;
}

/** Holds the line to the storekeeper for as long as the worker lives. */
export class WorkerLink {
  readonly #deps: WorkerLinkDeps;
  #socket: Socket | null = null;

  constructor(deps: WorkerLinkDeps) {
    this.#deps = deps;
    this.#connect();
  }

  get up(): boolean {
    return this.#socket !== null;
  }

  /** False where nobody listens: the caller keeps what it had to say. */
  send(message: WorkerMessage): boolean {
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
      const message = JSON.parse(line) as StorekeeperMessage;
      void this.#deps.invalidate(message).then(() => this.send({ kind: 'invalidated', seq: message.seq }));
    });
    socket.on('data', (chunk) => split(String(chunk)));
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#socket = null;
      setTimeout(() => this.#connect(), RECONNECT_MS).unref();
    });
  }
}
