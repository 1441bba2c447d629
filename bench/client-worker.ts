// A worker process with many HTTP clients on raw sockets, all in one of four modes. It sends `ready` once every client has reached
// the state of its mode, responds to `count` with the counts so far, and exits with its parent.
//
//   once    each client reads one asset and disconnects; `ready` includes the time until the last one finished
//   paced   each client reads range after range, no faster than its rate, as a player over an access line
//   idle    each client reads one asset and keeps its connection open
//   stall   each client requests one asset and stops reading after its first bytes

import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { systemClock } from '../runtime/clock.ts';
import { sendToParent } from '../runtime/process.ts';

export interface ClientSpec {
  readonly url: string;
  readonly mode: 'once' | 'paced' | 'idle' | 'stall';
  readonly clients: number;
  /** Path of an asset. `{}` is replaced by a random number below `assets`. */
  readonly path: string;
  readonly assets: number;
  readonly assetBytes: number;
  /** Size of the aligned ranges that are requested; 0 requests the whole asset. */
  readonly rangeBytes: number;
  /** Rate of a paced client. */
  readonly bytesPerSecond: number;
  /** Share of requests for an asset that has not been requested before: `missPath` with a unique number. */
  readonly missShare: number;
  readonly missPath: string;
}

export interface ClientCounts {
  readonly bodyBytes: number;
  readonly responses: number;
  readonly errors: number;
  /** Paced clients that have received at least 98 % of the bytes that their rate allows. */
  readonly onTime: number;
  readonly connected: number;
}

export interface ClientSummary extends ClientCounts {
  /** Time from the first connection until the last and the median client were done. */
  readonly lastMs: number;
  readonly medianMs: number;
}

const TICK_MS = 10;
const CONNECTING_MAX = 256;
const ON_TIME_SHARE = 0.98;
/** Size of one read, and therefore how far a client may be ahead of its rate. */
const READ_BYTES = 65_536;

const spec = JSON.parse(process.env['LARDER_BENCH']!) as ClientSpec;
const server = new URL(spec.url);
const shared = Buffer.allocUnsafe(READ_BYTES);
const clients: Client[] = [];
const timerWheel = new Map<number, Client[]>();
const doneMs: number[] = [];
let misses = 0;
let responses = 0;
let errors = 0;
let bodyBytes = 0;
let startedAtMs = 0;

class Client {
  readonly #socket: Socket;
  #head: string | null = '';
  #bodyBytesLeft = 0;
  #startedAtMs = 0;
  bytes = 0;
  #resolveSettled: () => void = () => undefined;
  readonly settled = new Promise<void>((resolve) => {
    this.#resolveSettled = resolve;
  });

  constructor() {
    const onread = {
      buffer: shared,
      callback: (length: number, buffer: Uint8Array): boolean => this.#onRead(buffer as Buffer, length),
    };
    const target = { host: server.hostname, port: Number(server.port), onread };
    this.#socket =
      server.protocol === 'https:'
        ? connectTls({ ...target, rejectUnauthorized: false }, () => this.#sendRequest())
        : connect({ ...target, noDelay: true }, () => this.#sendRequest());
    this.#socket.on('error', () => undefined);
    this.#socket.on('close', () => this.#onClose());
  }

  get connected(): boolean {
    return !this.#socket.destroyed;
  }

  get onTime(): boolean {
    const allowed = ((systemClock.monotonic() - this.#startedAtMs) / 1000) * spec.bytesPerSecond;
    return this.connected && this.bytes >= allowed * ON_TIME_SHARE - READ_BYTES;
  }

  resume(): void {
    this.#socket.resume();
  }

  #sendRequest(): void {
    if (this.#startedAtMs === 0) this.#startedAtMs = systemClock.monotonic();
    const miss = Math.random() < spec.missShare;
    const path = miss
      ? spec.missPath.replace('{}', `${process.pid}-${(misses += 1)}`)
      : spec.path.replace('{}', String(Math.floor(Math.random() * spec.assets)));
    const range = spec.rangeBytes === 0 ? '' : `Range: bytes=${this.#randomRange()}\r\n`;
    this.#head = '';
    this.#socket.write(`GET ${path} HTTP/1.1\r\nHost: bench\r\n${range}\r\n`);
  }

  /** The first range of a paced client has a random length, so that the clients do not request in lockstep afterwards. */
  #randomRange(): string {
    const slots = Math.max(1, Math.floor(spec.assetBytes / spec.rangeBytes));
    const first = Math.floor(Math.random() * slots) * spec.rangeBytes;
    const whole = spec.mode !== 'paced' || this.bytes > 0;
    const length = whole ? spec.rangeBytes : 1 + Math.floor(Math.random() * spec.rangeBytes);
    return `${first}-${first + length - 1}`;
  }

  /** Returns false to pause the socket. */
  #onRead(buffer: Buffer, length: number): boolean {
    let body = length;
    if (this.#head !== null) {
      this.#head += buffer.toString('latin1', 0, length);
      const end = this.#head.indexOf('\r\n\r\n');
      if (end < 0) return true;
      body = this.#head.length - end - 4;
      this.#bodyBytesLeft = this.#parseHead(this.#head.slice(0, end));
      this.#head = null;
    }
    this.#bodyBytesLeft -= body;
    this.bytes += body;
    bodyBytes += body;
    if (this.#bodyBytesLeft <= 0) this.#onResponseEnd();
    if (spec.mode === 'stall') {
      this.#resolveSettled();
      return false;
    }
    return spec.mode !== 'paced' || this.#mayReadNow();
  }

  #parseHead(head: string): number {
    const status = Number(head.slice(9, 12));
    if (status !== 200 && status !== 206) errors += 1;
    return Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? 0);
  }

  #onResponseEnd(): void {
    responses += 1;
    if (spec.mode === 'paced') return this.#sendRequest();
    doneMs.push(systemClock.monotonic() - startedAtMs);
    this.#resolveSettled();
    if (spec.mode === 'once') this.#socket.destroy();
  }

  #mayReadNow(): boolean {
    this.#resolveSettled();
    const dueAt = this.#startedAtMs + (this.bytes / spec.bytesPerSecond) * 1000;
    if (dueAt <= systemClock.monotonic() + TICK_MS) return true;
    const slot = Math.ceil(dueAt / TICK_MS);
    const waiting = timerWheel.get(slot);
    if (waiting === undefined) timerWheel.set(slot, [this]);
    else waiting.push(this);
    return false;
  }

  #onClose(): void {
    if (this.#bodyBytesLeft > 0 || this.#head !== null) errors += 1;
    this.#resolveSettled();
  }
}

process.on('disconnect', () => process.exit(0));
process.on('message', () => sendToParent({ kind: 'counts', ...counts() }));
await run();

async function run(): Promise<void> {
  startedAtMs = systemClock.monotonic();
  if (spec.mode === 'paced') startTimerWheel();
  // Clients of mode `once` connect at the same time. Others connect in batches that the listen backlog can hold.
  const atOnce = spec.mode === 'once' ? spec.clients : CONNECTING_MAX;
  for (let from = 0; from < spec.clients; from += atOnce) {
    const batch = Array.from({ length: Math.min(atOnce, spec.clients - from) }, () => new Client());
    clients.push(...batch);
    await Promise.all(batch.map((client) => client.settled));
  }
  const sorted = doneMs.toSorted((a, b) => a - b);
  const times = { lastMs: sorted.at(-1) ?? 0, medianMs: sorted[Math.floor(sorted.length / 2)] ?? 0 };
  sendToParent({ kind: 'ready', ...counts(), ...times });
}

/** Resumes the clients that are due. A late tick includes every slot that has passed. */
function startTimerWheel(): void {
  let next = Math.floor(systemClock.monotonic() / TICK_MS);
  systemClock.setInterval(() => {
    for (const now = systemClock.monotonic() / TICK_MS; next <= now; next += 1) {
      const due = timerWheel.get(next);
      timerWheel.delete(next);
      if (due !== undefined) for (const client of due) client.resume();
    }
  }, TICK_MS);
}

function counts(): ClientCounts {
  return {
    bodyBytes,
    responses,
    errors,
    onTime: clients.filter((client) => client.onTime).length,
    connected: clients.filter((client) => client.connected).length,
  };
}
