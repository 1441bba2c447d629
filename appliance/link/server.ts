// The storekeeper's end of the two sockets: it answers fetches and updates of workers, and broadcasts what they must invalidate.
// What a reply contains is decided by the handlers that the storekeeper passes in.

import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { Fault, isFault } from '../../protocol/faults.ts';
import { writeWithin } from '../../runtime/backpressure.ts';
import { systemClock, type Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import type { SlotSlice } from '../io/shared-memory.ts';
import { LIMITS } from '../limits.ts';
import type { BlockSlice } from '../store/receive-buffer.ts';
import { encodeSlices, frameHead, lineSplitter } from './framing.ts';
import {
  LINK_SOCKET,
  READ_SOCKET,
  type CacheUpdate,
  type FetchRequest,
  type Invalidation,
  type LinkRequest,
  type PresenceQuery,
  type ReplyHead,
  type StorekeeperMessage,
  type WorkerMessage,
  type WorkerReport,
} from './messages.ts';

/**
 * A worker that has not forgotten by then what it was told to forget hangs, and is killed: when it wakes it might read a slot of the
 * memory tier that has other bytes by then. Its end counts as its confirmation.
 */
const FORGET_MS_MAX = 10_000;
/** After a pause of this process itself, confirmations that have arrived are read before anybody is killed. */
const FORGET_GRACE_MS = 1_000;
/** A file that a hanging disk keeps open for longer than this is no longer waited for. */
const CLOSE_MS_MAX = 10_000;
/** Blocks named in one message, so that a line stays far below its limit. */
const MESSAGE_BLOCKS_MAX = 2_000;
/** Bytes in one frame. */
const FRAME_PAYLOAD_BYTES = 128 * 1024;
/** Length of the queue of connections that were not accepted yet. Connections beyond it are refused. */
const BACKLOG = 4_096;

type ReplyBody = AsyncIterable<Buffer | BlockSlice> | readonly Buffer[];

/** A reply to a fetch. `bytes` is the length of the body if it is known; it may end earlier. */
export interface FetchResponse {
  readonly head: ReplyHead;
  readonly body: ReplyBody | null;
  readonly bytes: number | null;
}

export interface LinkHandlers {
  /** Throws the fault to answer with. */
  readonly fetch: (request: FetchRequest) => Promise<FetchResponse>;
  /** Resolves when the update is in force. */
  readonly update: (update: CacheUpdate) => Promise<void>;
  readonly arePresent: (query: PresenceQuery) => boolean;
  /** The inode of the memory tier; null without one. */
  readonly memory: () => string | null;
  /** What a worker is told when it links: the memory tier. */
  readonly greeting: () => Iterable<StorekeeperMessage>;
  readonly onReport: (worker: number, report: WorkerReport) => void;
  readonly onWorkerGone: (worker: number) => void;
}

export interface LinkServerDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** Ends a worker that hangs. */
  readonly kill?: (pid: number) => void;
}

/** Each resolves when all workers have confirmed, or are gone. */
export interface Confirmations {
  /** No worker remembers any of it, or will read it in the memory tier. */
  readonly forgotten: Promise<void>;
  /** Nor has one a file of it open, or a disk that hangs keeps it from being closed. */
  readonly closed: Promise<void>;
}

interface Peer {
  readonly socket: Socket;
  worker: number;
  /** Null before it has said hello. */
  pid: number | null;
  /** What waits for its confirmations, by their kind and sequence number. */
  readonly waiting: Map<string, () => void>;
}

export class LinkServer {
  readonly #peers = new Set<Peer>();
  readonly #deps: LinkServerDeps;
  #seq = 0;
  #close: () => Promise<void> = async () => undefined;

  constructor(deps: LinkServerDeps) {
    this.#deps = deps;
  }

  /** How many workers are linked. */
  get workers(): number {
    return this.#peers.size;
  }

  async listen(handlers: LinkHandlers): Promise<void> {
    const readers = new Set<Socket>();
    const reads = createServer((socket) => {
      readers.add(socket);
      socket.on('close', () => readers.delete(socket));
      this.#serveRequests(socket, handlers);
    });
    const link = createServer((socket) => this.#acceptLink(socket, handlers));
    for (const path of [READ_SOCKET, LINK_SOCKET]) rmSync(path, { force: true });
    reads.listen({ path: READ_SOCKET, backlog: BACKLOG });
    await once(reads, 'listening');
    link.listen(LINK_SOCKET);
    await once(link, 'listening');
    this.#close = async () => {
      link.close();
      reads.close();
      for (const { socket } of this.#peers) socket.destroy();
      for (const socket of readers) socket.destroy();
    };
  }

  /** Tells every worker to let go of what it names. What a worker that is gone would have confirmed counts as confirmed. */
  broadcast({ keys, blocks, evicted }: Invalidation): Confirmations {
    const messages = Math.max(1, Math.ceil(Math.max(blocks.length, evicted.length) / MESSAGE_BLOCKS_MAX));
    const confirmations: Confirmations[] = [];
    for (let at = 0; at < messages; at += 1) {
      this.#seq += 1;
      const seq = this.#seq;
      const part = <T>(all: readonly T[]): T[] => all.slice(at * MESSAGE_BLOCKS_MAX, (at + 1) * MESSAGE_BLOCKS_MAX);
      const named = { keys: at === 0 ? keys : [], blocks: part(blocks), evicted: part(evicted) };
      const line = lineOf({ kind: 'invalidate', seq, ...named });
      for (const peer of this.#peers) confirmations.push(this.#invalidate(peer, seq, line));
    }
    const all = async (kind: keyof Confirmations): Promise<void> => {
      await Promise.all(confirmations.map((each) => each[kind]));
    };
    return { forgotten: all('forgotten'), closed: all('closed') };
  }

  /** Tells all workers something that they need not confirm. One that has not said hello learns it from its greeting. */
  announce(message: StorekeeperMessage): void {
    const line = lineOf(message);
    for (const { socket, pid } of this.#peers) if (pid !== null) socket.write(line);
  }

  close(): Promise<void> {
    return this.#close();
  }

  #invalidate(peer: Peer, seq: number, line: string): Confirmations {
    const { clock, log } = this.#deps;
    peer.socket.write(line);
    const forgotten = this.#confirmation(peer, `forgotten ${seq}`);
    const closed = this.#confirmation(peer, `closed ${seq}`);
    let timer = clock.setTimeout(() => {
      timer = clock.setTimeout(() => this.#end(peer), FORGET_GRACE_MS);
    }, FORGET_MS_MAX);
    void forgotten.then(() => clock.clear(timer));
    const impatience = clock.setTimeout(() => {
      log.warn(
        { worker: peer.worker, afterMs: CLOSE_MS_MAX },
        'a worker holds removed files open, their disk may hang',
      );
      peer.waiting.get(`closed ${seq}`)?.();
    }, CLOSE_MS_MAX);
    void closed.then(() => clock.clear(impatience));
    return { forgotten, closed };
  }

  #confirmation(peer: Peer, name: string): Promise<void> {
    return new Promise((resolve) => {
      peer.waiting.set(name, () => {
        peer.waiting.delete(name);
        resolve();
      });
    });
  }

  /** The process exists, and is no other one, for as long as its link is open. */
  #end({ pid, worker, socket }: Peer): void {
    const { log, kill = killProcess } = this.#deps;
    log.error({ worker, afterMs: FORGET_MS_MAX }, 'worker does not answer and is killed');
    if (pid === null) socket.destroy();
    else kill(pid);
  }

  #acceptLink(socket: Socket, handlers: LinkHandlers): void {
    const peer: Peer = { socket, worker: -1, pid: null, waiting: new Map() };
    this.#peers.add(peer);
    const split = lineSplitter((line) => receive(peer, JSON.parse(line) as WorkerMessage, handlers));
    socket.setEncoding('utf8');
    socket.on('data', (chunk) => split(String(chunk)));
    socket.on('error', (error) => this.#deps.log.debug({ err: error }, 'link broke'));
    socket.on('close', () => {
      this.#peers.delete(peer);
      for (const resolve of peer.waiting.values()) resolve();
      handlers.onWorkerGone(peer.worker);
    });
  }

  /** A worker sends one request at a time on a connection, so that its reply is all that is under way there. */
  #serveRequests(socket: Socket, handlers: LinkHandlers): void {
    const reader: Reader = { socket, onCopied: null };
    const split = lineSplitter((line) => {
      if (line === '') reader.onCopied?.();
      else void this.#reply(JSON.parse(line) as LinkRequest, reader, handlers);
    });
    socket.setEncoding('utf8');
    socket.on('data', (chunk) => split(String(chunk)));
    socket.on('error', (error) => this.#deps.log.debug({ err: error }, 'a worker abandoned a reply'));
  }

  async #reply(message: LinkRequest, reader: Reader, handlers: LinkHandlers): Promise<void> {
    const { socket } = reader;
    let response: FetchResponse;
    try {
      response = await respond(message, handlers);
    } catch (error) {
      const fault = isFault(error) ? error : new Fault('internal', 'the storekeeper failed', { cause: error });
      if (!isFault(error)) this.#deps.log.error({ err: error }, 'read failed');
      return sendHead(socket, { kind: 'fault', code: fault.code, message: fault.message }, true);
    }
    const { head, body, bytes } = response;
    sendHead(socket, head, body === null);
    if (body === null) return;
    const memory = handlers.memory();
    const mapsMemory = message.kind === 'fetch' && memory !== null && message.memory === memory;
    try {
      await sendBody(reader, body, { bytes, mapsMemory });
    } catch {
      // The worker asks again for the rest, and learns the fault then.
      socket.destroy();
    }
  }
}

/** The worker's end of a connection for requests. */
interface Reader {
  readonly socket: Socket;
  /** What waits for the worker to have copied the bytes that it was told of. */
  onCopied: (() => void) | null;
}

function receive(peer: Peer, message: WorkerMessage, handlers: LinkHandlers): void {
  if (message.kind === 'hello') {
    peer.worker = message.worker;
    peer.pid = message.pid;
    for (const greeting of handlers.greeting()) peer.socket.write(lineOf(greeting));
  } else if (message.kind === 'report') handlers.onReport(peer.worker, message);
  else peer.waiting.get(`${message.kind} ${message.seq}`)?.();
}

async function respond(message: LinkRequest, handlers: LinkHandlers): Promise<FetchResponse> {
  if (message.kind === 'fetch') return handlers.fetch(message.request);
  if (message.kind === 'present')
    return { head: { kind: 'present', all: handlers.arePresent(message.query) }, body: null, bytes: null };
  await handlers.update(message.update);
  return { head: { kind: 'ack' }, body: null, bytes: null };
}

/**
 * Sends the body at the worker's pace. The next piece is taken once the worker has copied the last one, or the kernel has it, because its
 * memory may be used for other bytes then. A worker that has gone ends the body, not the fetch behind it.
 */
async function sendBody(
  reader: Reader,
  body: ReplyBody,
  spec: { readonly bytes: number | null; readonly mapsMemory: boolean },
): Promise<void> {
  const { bytes, mapsMemory } = spec;
  let sent = 0;
  for await (const whole of body)
    for (const piece of Buffer.isBuffer(whole) ? partsOf(whole) : [whole]) {
      sent += piece.length;
      const isTaken = sendPiece(reader, piece, { isLast: sent === bytes, mapsMemory });
      if (isTaken === false || (isTaken !== true && !(await isTaken))) return;
    }
  if (sent === 0 || sent !== bytes) reader.socket.write(frameHead({ bytes: 0, isLast: true, hasSlices: false }));
}

function* partsOf(bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += FRAME_PAYLOAD_BYTES) yield bytes.subarray(at, at + FRAME_PAYLOAD_BYTES);
}

function sendPiece(
  reader: Reader,
  piece: Buffer | BlockSlice,
  { isLast, mapsMemory }: { readonly isLast: boolean; readonly mapsMemory: boolean },
): boolean | Promise<boolean> {
  if (Buffer.isBuffer(piece)) return sendBytes(reader, [piece], isLast);
  const { buffers, slices } = piece;
  if (slices === null) return sendBytes(reader, buffers, isLast);
  if (mapsMemory) return sendSlices(reader, slices, isLast);
  // The slots may have other bytes before the kernel has these, or even by now.
  const copy = Buffer.concat(buffers);
  if (!piece.isCurrent()) throw new Error('the bytes have left the memory tier');
  return sendBytes(reader, [copy], isLast);
}

function sendBytes({ socket }: Reader, buffers: readonly Buffer[], isLast: boolean): boolean | Promise<boolean> {
  const bytes = buffers.reduce((sum, { length }) => sum + length, 0);
  return writeWithin(socket, [frameHead({ bytes, isLast, hasSlices: false }), ...buffers], LIMITS.linkReaderStallMs);
}

/** Resolves to true once the worker has copied them. Destroys the connection of one that does not in time. */
function sendSlices(reader: Reader, slices: readonly SlotSlice[], isLast: boolean): boolean | Promise<boolean> {
  const { socket } = reader;
  if (socket.destroyed) return false;
  const encoded = encodeSlices(slices);
  socket.write(Buffer.concat([frameHead({ bytes: encoded.length, isLast, hasSlices: true }), encoded]));
  return new Promise((resolve) => {
    const settle = (isCopied: boolean): void => {
      systemClock.clear(stalled);
      reader.onCopied = null;
      socket.off('close', onClose);
      resolve(isCopied);
    };
    const onClose = (): void => settle(false);
    const stalled = systemClock.setTimeout(() => socket.destroy(), LIMITS.linkReaderStallMs);
    reader.onCopied = () => settle(true);
    socket.on('close', onClose);
  });
}

const lineOf = (message: StorekeeperMessage): string => `${JSON.stringify(message)}\n`;

function killProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has just ended by itself.
  }
}

/** Leaves in one write with the first payload, when that is at hand in the same turn. */
function sendHead(socket: Socket, head: ReplyHead, last: boolean): void {
  const json = Buffer.from(JSON.stringify(head));
  socket.cork();
  socket.write(frameHead({ bytes: json.length, isLast: last, hasSlices: false }));
  socket.write(json);
  process.nextTick(() => socket.uncork());
}
