// The worker's end of the two sockets: it fetches bytes that are not on disk, reports what it served, and invalidates what it is told to.

import { createConnection, type Socket } from 'node:net';
import { Fault, FAULTS, isFault, type FaultCode } from '../../protocol/faults.ts';
import type { Clock } from '../../runtime/clock.ts';
import { Semaphore } from '../../runtime/semaphore.ts';
import type { AssetView } from '../http/asset.ts';
import type { BufferPool } from '../io/buffer-pool.ts';
import type { MappedMemory } from '../io/shared-memory.ts';
import { LIMITS } from '../limits.ts';
import type { ResidentBlock } from '../store/memory-tier.ts';
import { LinkConnection, type FetchReply } from './connection.ts';
import { lineSplitter } from './framing.ts';
import {
  LINK_SOCKET,
  type CacheUpdate,
  type FetchRequest,
  type Invalidation,
  type LinkRequest,
  type StorekeeperMessage,
  type WorkerMessage,
} from './messages.ts';

const RECONNECT_MS = 20;

export class StorekeeperClient {
  readonly #pool: BufferPool;
  readonly #permits = new Semaphore({ permits: LIMITS.linkRequestsMax });
  readonly #idle: LinkConnection[] = [];
  /** The memory tier, where it is mapped. */
  readonly #memory: () => MappedMemory | null;

  constructor(pool: BufferPool, memory: () => MappedMemory | null) {
    this.#pool = pool;
    this.#memory = memory;
  }

  /** Throws the fault that the storekeeper answered, or `unreachable` when it is down. */
  fetch(request: FetchRequest): Promise<FetchReply> {
    const memory = this.#memory();
    return this.#request({ kind: 'fetch', request, memory: memory?.name.inode ?? null }, memory);
  }

  /** Resolves when the update is in force. Throws `unreachable`. */
  async update(update: CacheUpdate): Promise<void> {
    await this.#request({ kind: 'update', update });
  }

  /** Whether all of these blocks are on disk; false when the storekeeper cannot say. */
  async arePresent({ id, volume }: AssetView, [first, last]: readonly [number, number]): Promise<boolean> {
    try {
      const { head } = await this.#request({ kind: 'present', query: { id, volume, first, last } });
      return head.kind === 'present' && head.all;
    } catch (error) {
      if (isFault(error)) return false;
      throw error;
    }
  }

  async #request(request: LinkRequest, memory: MappedMemory | null = null): Promise<FetchReply> {
    await this.#permits.acquire();
    const connection = this.#idle.pop() ?? this.#connect();
    let reply: FetchReply;
    try {
      reply = await connection.request(request, memory);
    } catch (error) {
      throw new Fault('unreachable', 'the storekeeper cannot be reached', { cause: error });
    }
    const { head } = reply;
    if (head.kind !== 'fault') return reply;
    throw new Fault(head.code in FAULTS ? (head.code as FaultCode) : 'internal', head.message);
  }

  /** A connection holds a permit from its request to the end of the reply. */
  #connect(): LinkConnection {
    return new LinkConnection(this.#pool, {
      onIdle: (connection) => {
        this.#idle.push(connection);
        this.#permits.release();
      },
      onClose: (connection) => {
        const at = this.#idle.indexOf(connection);
        if (at === -1) this.#permits.release();
        else this.#idle.splice(at, 1);
      },
    });
  }
}

export interface WorkerLinkDeps {
  readonly worker: number;
  /** Forgets all of it before it returns. Resolves when no file of it is open any more. */
  readonly invalidate: (invalidation: Invalidation) => Promise<void>;
  readonly onMemory: (memory: StorekeeperMessage & { readonly kind: 'memory' }) => void;
  readonly onResident: (blocks: readonly ResidentBlock[]) => void;
  /** The storekeeper is new, or the link was down: nothing that the worker learnt before counts. */
  readonly onConnect: () => void;
  readonly clock: Clock;
}

/** Keeps the control link to the storekeeper for as long as the worker lives. */
export class WorkerLink {
  readonly #deps: WorkerLinkDeps;
  #socket: Socket | null = null;

  constructor(deps: WorkerLinkDeps) {
    this.#deps = deps;
    this.#connect();
  }

  get isUp(): boolean {
    return this.#socket !== null;
  }

  /** False while the link is down: the caller keeps the message. */
  send(message: WorkerMessage): boolean {
    if (this.#socket === null || this.#socket.destroyed) return false;
    this.#socket.write(`${JSON.stringify(message)}\n`);
    return true;
  }

  /** What a message asks for is confirmed on the link that it came by: the next storekeeper numbers its own. */
  #receive(message: StorekeeperMessage, socket: Socket): void {
    const { invalidate, onMemory, onResident } = this.#deps;
    if (message.kind === 'memory') return onMemory(message);
    if (message.kind === 'resident') return onResident(message.blocks);
    const { seq } = message;
    const closed = invalidate(message);
    confirm(socket, { kind: 'forgotten', seq });
    void closed.then(() => confirm(socket, { kind: 'closed', seq }));
  }

  #connect(): void {
    const socket = createConnection({ path: LINK_SOCKET });
    socket.setEncoding('utf8');
    socket.on('connect', () => {
      this.#socket = socket;
      this.#deps.onConnect();
      this.send({ kind: 'hello', worker: this.#deps.worker, pid: process.pid });
    });
    const split = lineSplitter((line) => this.#receive(JSON.parse(line) as StorekeeperMessage, socket));
    socket.on('data', (chunk) => split(String(chunk)));
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#socket = null;
      this.#deps.clock.setTimeout(() => this.#connect(), RECONNECT_MS).unref();
    });
  }
}

function confirm(socket: Socket, message: WorkerMessage): void {
  if (!socket.destroyed) socket.write(`${JSON.stringify(message)}\n`);
}
