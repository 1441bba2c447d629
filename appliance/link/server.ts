// The storekeeper's end of the two sockets.

import { createServer, type Socket } from 'node:net';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { Fault, isFault } from '../../protocol/faults.ts';
import type { Log } from '../../runtime/log.ts';
import type { Invalidation } from '../store/cache.ts';
import { writeWithin } from '../../runtime/backpressure.ts';
import type { AssetView } from '../http/asset.ts';
import { frameHead, lineSplitter } from './framing.ts';
import {
  LINK_SOCKET,
  READ_SOCKET,
  type FetchRequest,
  type StorekeeperMessage,
  type ReplyHead,
  type PresenceQuery,
  type LinkRequest,
  type WorkerMessage,
  type WorkerReport,
} from './messages.ts';
import { PIECE_BYTES_MAX } from '../fetch/pending-block.ts';
import type { Lookup } from '../fetch/lookup.ts';
import type { Miss, MissResult } from '../fetch/miss.ts';
import type { Entry } from '../store/volume.ts';

export interface LinkServerDeps {
  readonly miss: Miss;
  readonly lookup: Pick<Lookup, 'applyUpdate'>;
  readonly present: (look: PresenceQuery) => boolean;
  readonly onReport: (worker: number, report: WorkerReport) => void;
  readonly onWorkerGone: (worker: number) => void;
  readonly log: Log;
}

/** A worker that has not closed what it was told to forget by then hangs: it is let go, and learns anew when it wakes. */
const FORGET_MS_MAX = 10_000;
/** Of one message, so that a line stays far below its limit. */
const FORGET_BLOCKS_MAX = 10_000;
/** Who takes no piece in this time has stalled: its stream is let go, and the block in memory with it. It asks again from where it is. */
const STALLED_MS = 10_000;

/** Of asks that come at once: a Unix socket refuses who finds no place. */
const BACKLOG = 4_096;

interface Peer {
  readonly socket: Socket;
  worker: number;
  waiting: { readonly seq: number; readonly resolve: () => void }[];
}

export class LinkServer {
  readonly #peers = new Set<Peer>();
  readonly #log: Log;
  #seq = 0;
  #close: () => Promise<void> = async () => undefined;

  constructor(log: Log) {
    this.#log = log;
  }

  get workers(): number {
    return this.#peers.size;
  }

  async listen(deps: LinkServerDeps): Promise<void> {
    const readers = new Set<Socket>();
    const reads = createServer((socket) => {
      readers.add(socket);
      socket.on('close', () => readers.delete(socket));
      hear(deps, socket);
    });
    const link = createServer((socket) => this.#welcome(socket, deps));
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

  /** Resolves when every worker has closed what it is told to forget, or is gone. */
  async broadcast({ keys, blocks }: Invalidation): Promise<void> {
    const messages = Math.max(1, Math.ceil(blocks.length / FORGET_BLOCKS_MAX));
    for (let at = 0; at < messages; at += 1) {
      this.#seq += 1;
      const some = blocks.slice(at * FORGET_BLOCKS_MAX, (at + 1) * FORGET_BLOCKS_MAX);
      const message: StorekeeperMessage = {
        kind: 'invalidate',
        seq: this.#seq,
        keys: at === 0 ? keys : [],
        blocks: some,
      };
      const line = `${JSON.stringify(message)}\n`;
      await Promise.all([...this.#peers].map((peer) => this.#tell(peer, message.seq, line)));
    }
  }

  async #tell(peer: Peer, seq: number, line: string): Promise<void> {
    peer.socket.write(line);
    const hung = setTimeout(() => {
      this.#log.error({ worker: peer.worker, afterMs: FORGET_MS_MAX }, 'worker does not answer, its link is cut');
      peer.socket.destroy();
    }, FORGET_MS_MAX);
    await new Promise<void>((resolve) => peer.waiting.push({ seq, resolve }));
    clearTimeout(hung);
  }

  close(): Promise<void> {
    return this.#close();
  }

  #welcome(socket: Socket, deps: LinkServerDeps): void {
    const peer: Peer = { socket, worker: -1, waiting: [] };
    this.#peers.add(peer);
    const split = lineSplitter((line) => this.#hear(peer, JSON.parse(line) as WorkerMessage, deps));
    socket.setEncoding('utf8');
    socket.on('data', (chunk) => split(String(chunk)));
    socket.on('error', (error) => this.#log.debug({ err: error }, 'link broke'));
    socket.on('close', () => {
      this.#peers.delete(peer);
      for (const { resolve } of peer.waiting) resolve();
      deps.onWorkerGone(peer.worker);
    });
  }

  #hear(peer: Peer, message: WorkerMessage, deps: LinkServerDeps): void {
    if (message.kind === 'hello') peer.worker = message.worker;
    else if (message.kind === 'report') deps.onReport(peer.worker, message);
    else {
      for (const { seq, resolve } of peer.waiting) if (seq <= message.seq) resolve();
      peer.waiting = peer.waiting.filter(({ seq }) => seq > message.seq);
    }
  }
}

export const assetViewOf = (entry: Entry): AssetView => ({
  key: entry.key,
  version: entry.version,
  bytes: entry.bytes,
  headers: entry.headers,
  generatedAtMs: entry.generatedAtMs,
  holding: entry.holding,
  id: entry.id,
  volume: entry.volume.number,
  directory: entry.volume.directory,
});

/** One question at a time, so that the answer to it is all that is under way. */
function hear(deps: LinkServerDeps, socket: Socket): void {
  const split = lineSplitter((line) => void answer(deps, JSON.parse(line) as LinkRequest, socket));
  socket.setEncoding('utf8');
  socket.on('data', (chunk) => split(String(chunk)));
  socket.on('error', (error) => deps.log.debug({ err: error }, 'a worker left an answer'));
}

async function answer(deps: LinkServerDeps, question: LinkRequest, socket: Socket): Promise<void> {
  const { miss, lookup, log } = deps;
  let opened: MissResult | null = null;
  try {
    if (question.kind === 'update') {
      await lookup.applyUpdate(question.told);
      sendHead(socket, { kind: 'ack' }, true);
    } else if (question.kind === 'present')
      sendHead(socket, { kind: 'present', all: deps.present(question.look) }, true);
    else {
      opened = await miss.open(question.ask);
      await reply(opened, question.ask, socket);
    }
  } catch (error) {
    if (opened !== null) {
      socket.destroy();
      return;
    }
    const fault = isFault(error) ? error : new Fault('internal', 'the storekeeper failed', { cause: error });
    if (!isFault(error)) log.error({ err: error }, 'read failed');
    sendHead(socket, { kind: 'fault', code: fault.code, message: fault.message }, true);
  }
}

async function reply(opened: MissResult, ask: FetchRequest, socket: Socket): Promise<void> {
  if (opened.kind === 'bypass' || opened.kind === 'not-cached') sendHead(socket, opened, true);
  else if (opened.kind === 'relay') {
    const { body, generatedAtMs: _, ...head } = opened;
    sendHead(socket, head, false);
    await pump(Buffer.isBuffer(body) ? [body] : body, null, socket);
  } else {
    const { kind, entry, validated, forward, body } = opened;
    sendHead(socket, { kind, asset: assetViewOf(entry), body: body !== null, validated, forward }, body === null);
    if (body === null) return;
    const from = ask.from === 'suffix' ? 0 : ask.from;
    await pump(body, Math.min(ask.to ?? entry.bytes, entry.bytes) - from, socket);
  }
}

/**
 * Follows the writer at the reader's pace; a reader that left ends the following, not the flight. The next piece is asked for
 * when the last one is the system's: its buffer may be used again from then on. `bytes` may come, or fewer; null: nobody knows.
 */
async function pump(
  body: AsyncIterable<Buffer> | readonly Buffer[],
  bytes: number | null,
  socket: Socket,
): Promise<void> {
  let sent = 0;
  for await (const chunk of body) {
    for (let at = 0; at < chunk.length; at += PIECE_BYTES_MAX) {
      const piece = chunk.subarray(at, at + PIECE_BYTES_MAX);
      sent += piece.length;
      const taken = writeWithin(socket, [frameHead(piece.length, sent === bytes), piece], STALLED_MS);
      if (taken === false || (taken !== true && !(await taken))) return;
    }
  }
  if (sent === 0 || sent !== bytes) socket.write(frameHead(0, true));
}

/** With the first piece, where that is at hand by now. */
function sendHead(socket: Socket, head: ReplyHead, last: boolean): void {
  const json = Buffer.from(JSON.stringify(head));
  socket.cork();
  socket.write(frameHead(json.length, last));
  socket.write(json);
  process.nextTick(() => socket.uncork());
}
