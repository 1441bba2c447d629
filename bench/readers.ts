// A process: many readers on raw sockets, in one of four manners. It says `ready` when all of them have what they came for
// first, answers `count` with what they have read so far, and ends with its parent.
//
//   once    each reads one asset and is done; says when the last one was
//   paced   each reads range after range, no faster than its rate, as a player's line lets it
//   idle    each reads one asset and keeps the connection
//   stall   each asks for one asset and stops reading at its first bytes

import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { tellParent } from '../runtime/process.ts';

export interface ReadersSpec {
  readonly url: string;
  readonly manner: 'once' | 'paced' | 'idle' | 'stall';
  readonly readers: number;
  /** Path of the n-th asset: `{}` stands for a number below `assets`. */
  readonly path: string;
  readonly assets: number;
  readonly assetBytes: number;
  /** Bytes of a range, whole ranges of the asset; 0 asks for the asset without one. */
  readonly rangeBytes: number;
  /** For those who are paced. */
  readonly bytesPerSecond: number;
  /** Share of requests that ask for something nobody has asked for: path with a number of its own. */
  readonly missShare: number;
  readonly missPath: string;
}

export interface ReadersCounts {
  readonly bodyBytes: number;
  readonly answers: number;
  readonly errors: number;
  /** Paced readers that had at least 98 % of what their rate allows since they began. */
  readonly onTime: number;
  readonly connected: number;
}

export interface ReadersDone extends ReadersCounts {
  /** Until the last and the median reader had all, from the first connection on. */
  readonly lastMs: number;
  readonly medianMs: number;
}

const TICK_MS = 10;
const CONNECTING_MAX = 256;
const ON_TIME_SHARE = 0.98;
/** A reader may be this much ahead: a read is at most that long. */
const READ_BYTES = 65_536;

const spec = JSON.parse(process.env['LARDER_BENCH']!) as ReadersSpec;
const at = new URL(spec.url);
const shared = Buffer.allocUnsafe(READ_BYTES);
const readers: Reader[] = [];
const slots = new Map<number, Reader[]>();
const doneMs: number[] = [];
let misses = 0;
let answers = 0;
let errors = 0;
let served = 0;
let startedAt = 0;

class Reader {
  readonly #socket: Socket;
  #head: string | null = '';
  #left = 0;
  #begunAt = 0;
  bytes = 0;
  #settled: () => void = () => undefined;
  readonly settled = new Promise<void>((resolve) => {
    this.#settled = resolve;
  });

  constructor() {
    const onread = {
      buffer: shared,
      callback: (length: number, buffer: Uint8Array): boolean => this.#hear(buffer as Buffer, length),
    };
    const to = { host: at.hostname, port: Number(at.port), onread };
    this.#socket =
      at.protocol === 'https:'
        ? connectTls({ ...to, rejectUnauthorized: false }, () => this.#ask())
        : connect({ ...to, noDelay: true }, () => this.#ask());
    this.#socket.on('error', () => undefined);
    this.#socket.on('close', () => this.#closed());
  }

  get connected(): boolean {
    return !this.#socket.destroyed;
  }

  get onTime(): boolean {
    const allowed = ((performance.now() - this.#begunAt) / 1000) * spec.bytesPerSecond;
    return this.connected && this.bytes >= allowed * ON_TIME_SHARE - READ_BYTES;
  }

  resume(): void {
    this.#socket.resume();
  }

  #ask(): void {
    if (this.#begunAt === 0) this.#begunAt = performance.now();
    const miss = Math.random() < spec.missShare;
    const path = miss
      ? spec.missPath.replace('{}', `${process.pid}-${(misses += 1)}`)
      : spec.path.replace('{}', String(Math.floor(Math.random() * spec.assets)));
    const range = spec.rangeBytes === 0 ? '' : `Range: bytes=${this.#range()}\r\n`;
    this.#head = '';
    this.#socket.write(`GET ${path} HTTP/1.1\r\nHost: bench\r\n${range}\r\n`);
  }

  /** The first of those who are paced is of any length, so that they do not all ask at the same time from then on. */
  #range(): string {
    const slots = Math.max(1, Math.floor(spec.assetBytes / spec.rangeBytes));
    const first = Math.floor(Math.random() * slots) * spec.rangeBytes;
    const whole = spec.manner !== 'paced' || this.bytes > 0;
    const length = whole ? spec.rangeBytes : 1 + Math.floor(Math.random() * spec.rangeBytes);
    return `${first}-${first + length - 1}`;
  }

  /** False pauses the socket. */
  #hear(buffer: Buffer, length: number): boolean {
    let body = length;
    if (this.#head !== null) {
      this.#head += buffer.toString('latin1', 0, length);
      const end = this.#head.indexOf('\r\n\r\n');
      if (end < 0) return true;
      body = this.#head.length - end - 4;
      this.#left = this.#readHead(this.#head.slice(0, end));
      this.#head = null;
    }
    this.#left -= body;
    this.bytes += body;
    served += body;
    if (this.#left <= 0) this.#ended();
    if (spec.manner === 'stall') {
      this.#settled();
      return false;
    }
    return spec.manner !== 'paced' || this.#pace();
  }

  #readHead(head: string): number {
    const status = Number(head.slice(9, 12));
    if (status !== 200 && status !== 206) errors += 1;
    return Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? 0);
  }

  #ended(): void {
    answers += 1;
    if (spec.manner === 'paced') return this.#ask();
    doneMs.push(performance.now() - startedAt);
    this.#settled();
    if (spec.manner === 'once') this.#socket.destroy();
  }

  #pace(): boolean {
    this.#settled();
    const dueAt = this.#begunAt + (this.bytes / spec.bytesPerSecond) * 1000;
    if (dueAt <= performance.now() + TICK_MS) return true;
    const slot = Math.ceil(dueAt / TICK_MS);
    const waiting = slots.get(slot);
    if (waiting === undefined) slots.set(slot, [this]);
    else waiting.push(this);
    return false;
  }

  #closed(): void {
    if (this.#left > 0 || this.#head !== null) errors += 1;
    this.#settled();
  }
}

process.on('disconnect', () => process.exit(0));
process.on('message', () => tellParent({ kind: 'counts', ...counts() }));
await run();

async function run(): Promise<void> {
  startedAt = performance.now();
  if (spec.manner === 'paced') startWheel();
  // Those who read once come all at the same time; others in a queue that no listener overflows from.
  const atOnce = spec.manner === 'once' ? spec.readers : CONNECTING_MAX;
  for (let from = 0; from < spec.readers; from += atOnce) {
    const wave = Array.from({ length: Math.min(atOnce, spec.readers - from) }, () => new Reader());
    readers.push(...wave);
    await Promise.all(wave.map((reader) => reader.settled));
  }
  const sorted = doneMs.toSorted((a, b) => a - b);
  const times = { lastMs: sorted.at(-1) ?? 0, medianMs: sorted[Math.floor(sorted.length / 2)] ?? 0 };
  tellParent({ kind: 'ready', ...counts(), ...times });
}

/** Resumes those whose time has come; a tick that comes late takes all slots up to now. */
function startWheel(): void {
  let next = Math.floor(performance.now() / TICK_MS);
  setInterval(() => {
    for (const now = performance.now() / TICK_MS; next <= now; next += 1) {
      const due = slots.get(next);
      slots.delete(next);
      if (due !== undefined) for (const reader of due) reader.resume();
    }
  }, TICK_MS);
}

function counts(): ReadersCounts {
  return {
    bodyBytes: served,
    answers,
    errors,
    onTime: readers.filter((reader) => reader.onTime).length,
    connected: readers.filter((reader) => reader.connected).length,
  };
}
