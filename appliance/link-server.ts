// The storekeeper's end of the two sockets.

import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer, type Socket } from 'node:net';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { Fault, isFault } from '../protocol/faults.ts';
import type { Log } from '../runtime/log.ts';
import type { Forgotten } from './cache.ts';
import { written } from './flow.ts';
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
  type WorkerReport,
} from './link.ts';
import { PIECE_BYTES_MAX } from './landing.ts';
import type { Locate } from './locate.ts';
import type { Miss, Opened } from './miss.ts';
import type { Entry } from './store.ts';

export interface LinkServerDeps {
  readonly miss: Miss;
  readonly locate: Pick<Locate, 'told'>;
  readonly present: (look: Look) => boolean;
  readonly onReport: (worker: number, report: WorkerReport) => void;
  readonly onGone: (worker: number) => void;
  readonly log: Log;
}

/** A worker that has not closed what it was told to forget by then hangs: it is let go, and learns anew when it wakes. */
const FORGET_MS_MAX = 10_000;
/** Of one message, so that a line stays far below its limit. */
const FORGET_BLOCKS_MAX = 10_000;
/** Who takes no piece in this time has stalled: its stream is let go, and the block in memory with it. It asks again from where it is. */
const STALLED_MS = 10_000;

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
    const limits = { keepAliveTimeout: 60_000, requestTimeout: 0, maxHeaderSize: HEAD_BYTES_MAX };
    const http = createHttpServer(limits, (request, response) => {
      void answer(deps, request, response);
    });
    const link = createServer((socket) => this.#welcome(socket, deps));
    for (const path of [READ_SOCKET, LINK_SOCKET]) rmSync(path, { force: true });
    http.listen(READ_SOCKET);
    await once(http, 'listening');
    link.listen(LINK_SOCKET);
    await once(link, 'listening');
    this.#close = async () => {
      for (const peer of this.#peers) peer.socket.destroy();
      link.close();
      http.close();
      http.closeAllConnections();
    };
  }

  /** Resolves when every worker has closed what it is told to forget, or is gone. */
  async broadcast({ keys, blocks }: Forgotten): Promise<void> {
    const messages = Math.max(1, Math.ceil(blocks.length / FORGET_BLOCKS_MAX));
    for (let at = 0; at < messages; at += 1) {
      this.#seq += 1;
      const some = blocks.slice(at * FORGET_BLOCKS_MAX, (at + 1) * FORGET_BLOCKS_MAX);
      const message: DownMessage = { kind: 'forget', seq: this.#seq, keys: at === 0 ? keys : [], blocks: some };
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
    const split = lineSplitter((line) => this.#hear(peer, JSON.parse(line) as UpMessage, deps));
    socket.setEncoding('utf8');
    socket.on('data', (chunk) => split(String(chunk)));
    socket.on('error', (error) => this.#log.debug({ err: error }, 'link broke'));
    socket.on('close', () => {
      this.#peers.delete(peer);
      for (const { resolve } of peer.waiting) resolve();
      deps.onGone(peer.worker);
    });
  }

  #hear(peer: Peer, message: UpMessage, deps: LinkServerDeps): void {
    if (message.kind === 'hello') peer.worker = message.worker;
    else if (message.kind === 'report') deps.onReport(peer.worker, message);
    else {
      for (const { seq, resolve } of peer.waiting) if (seq <= message.seq) resolve();
      peer.waiting = peer.waiting.filter(({ seq }) => seq > message.seq);
    }
  }
}

export const viewOf = (entry: Entry): AssetView => ({
  key: entry.key,
  version: entry.version,
  bytes: entry.bytes,
  headers: entry.headers,
  bornMs: entry.bornMs,
  holding: entry.holding,
  id: entry.id,
  volume: entry.volume.number,
  directory: entry.volume.directory,
});

async function answer(deps: LinkServerDeps, request: IncomingMessage, response: ServerResponse): Promise<void> {
  response.on('error', () => undefined);
  const { miss, locate, log } = deps;
  const asked: unknown = JSON.parse(String(request.headers[HEAD_FIELD]));
  try {
    if (request.url === '/told') {
      await locate.told(asked as Told);
      response.writeHead(204).end();
    } else if (request.url === '/present') response.writeHead(deps.present(asked as Look) ? 204 : 404).end();
    else await reply(await miss.open(asked as Ask), response);
  } catch (error) {
    if (response.headersSent) {
      response.destroy();
      return;
    }
    const fault = isFault(error) ? error : new Fault('internal', 'the storekeeper failed', { cause: error });
    if (!isFault(error)) log.error({ err: error }, 'read failed');
    send(response, { kind: 'fault', code: fault.code, message: fault.message });
    response.end();
  }
}

async function reply(opened: Opened, response: ServerResponse): Promise<void> {
  if (opened.kind === 'pass' || opened.kind === 'absent') {
    send(response, opened);
    response.end();
  } else if (opened.kind === 'relay') {
    const { body, bornMs: _, ...head } = opened;
    send(response, head);
    await pump(Buffer.isBuffer(body) ? [body] : body, response);
    response.end();
  } else {
    const { kind, validated, forward } = opened;
    send(response, { kind, asset: viewOf(opened.entry), body: opened.body !== null, validated, forward });
    if (opened.body !== null) await pump(opened.body, response);
    response.end();
  }
}

/**
 * Follows the writer at the reader's pace; a reader that left ends the following, not the flight. The next piece is asked for
 * when the last one is the system's: its buffer may be used again from then on.
 */
async function pump(body: AsyncIterable<Buffer> | readonly Buffer[], response: ServerResponse): Promise<void> {
  for await (const chunk of body) {
    for (let at = 0; at < chunk.length; at += PIECE_BYTES_MAX)
      if (!(await written(response, chunk.subarray(at, at + PIECE_BYTES_MAX), STALLED_MS))) return;
  }
}

function send(response: ServerResponse, head: Head): void {
  response.writeHead(200, { [HEAD_FIELD]: headerSafe(head) });
}
