// The access record: a line for each request that could be read, in the Combined Log Format that every log reader knows, and three fields behind it:
// the range that was asked for, what the cache did (or the fault's code), and the seconds until the last byte was handed on.
//
//   192.0.2.7 - - [20/Nov/2026:21:40:03 +0000] "GET /film.mp4 HTTP/1.1" 206 65536 "-" "Lavf/61.1" "bytes=0-65535" hit 0.018
//
// Lines gather in memory and are appended once a second, whole, so that workers share a file. Whoever rotates it renames it:
// within a second lines go to a new one. A reader never waits for a line: those that find no room are lost, and counted.

import type { IncomingMessage } from 'node:http';
import { open, stat, type FileHandle } from 'node:fs/promises';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import type { Counters } from '../metrics.ts';

const FLUSH_MS = 1_000;
const CHUNK_BYTES = 2 ** 18;
/** What waits for a slow disk. */
const CHUNKS_MAX = 32;
const TEXT_MAX = 1_000;
/** Four texts, each byte escaped, and what stands around them. */
const LINE_BYTES_MAX = 4 * TEXT_MAX * 4 + 1_000;

const SPACE = 0x20;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const TILDE = 0x7e;

/** What a line says of a request. */
export interface LoggedRequest {
  /** Address, or `-`. */
  readonly client: string;
  /** Its first line. */
  readonly line: string;
  readonly range: string;
  readonly referer: string;
  readonly agent: string;
  /** Monotonic. */
  readonly sinceMs: number;
}

export interface LoggedResponse {
  readonly status: number;
  readonly bytes: number;
  readonly outcome: string;
}

export interface AccessLogDeps {
  readonly clock: Clock;
  readonly counters: Counters;
  readonly log: Log;
}

interface Chunk {
  readonly buffer: Buffer;
  bytes: number;
  lines: number;
}

export class AccessLog {
  readonly #path: string;
  readonly #deps: AccessLogDeps;
  readonly #asked = new WeakMap<IncomingMessage, LoggedRequest>();
  #file: FileHandle | null = null;
  #open: Chunk = newChunk();
  readonly #full: Chunk[] = [];
  #spare: Chunk | null = null;
  #writing: Promise<void> | null = null;
  /** The open chunk is to be written as soon as there is a place for it. */
  #waiting = false;
  /** The file ends in the middle of a line. */
  #torn = false;
  #failed = false;
  #second = -1;
  #date = '';

  constructor(path: string, deps: AccessLogDeps) {
    this.#path = path;
    this.#deps = deps;
    setInterval(() => void this.flush(), FLUSH_MS).unref();
  }

  /** To be called when node:http has read a request: later its address may be gone. */
  begin(request: IncomingMessage): void {
    const { headers } = request;
    this.#asked.set(request, {
      client: clientOf(request.socket.remoteAddress),
      line: `${request.method} ${request.url} HTTP/${request.httpVersion}`,
      range: headers.range ?? '-',
      referer: headers.referer ?? '-',
      agent: headers['user-agent'] ?? '-',
      sinceMs: this.#deps.clock.monotonic(),
    });
  }

  end(request: IncomingMessage, answered: LoggedResponse): void {
    const asked = this.#asked.get(request);
    if (asked !== undefined) this.add(asked, answered);
  }

  add(asked: LoggedRequest, { status, bytes, outcome }: LoggedResponse): void {
    if (this.#open.bytes + LINE_BYTES_MAX > CHUNK_BYTES) void this.flush();
    const chunk = this.#open;
    if (chunk.bytes + LINE_BYTES_MAX > CHUNK_BYTES) {
      this.#deps.counters.add('larder_access_log_dropped_total');
      return;
    }
    const { buffer } = chunk;
    const ms = Math.round(this.#deps.clock.monotonic() - asked.sinceMs);
    let at = put(buffer, chunk.bytes, asked.client);
    at = put(buffer, at, this.#now());
    at = putPlain(buffer, at, asked.line);
    at = put(buffer, at, `" ${status} ${bytes} "`);
    at = putPlain(buffer, at, asked.referer);
    at = put(buffer, at, '" "');
    at = putPlain(buffer, at, asked.agent);
    at = put(buffer, at, '" "');
    at = putPlain(buffer, at, asked.range);
    at = put(buffer, at, `" ${outcome} ${Math.floor(ms / 1_000)}.${String(ms % 1_000).padStart(3, '0')}\n`);
    chunk.bytes = at;
    chunk.lines += 1;
  }

  /** Resolves when all that was added is written, or lost. */
  flush(): Promise<void> {
    this.#retire();
    this.#writing ??= this.#write().finally(() => (this.#writing = null));
    return this.#writing;
  }

  #retire(): void {
    this.#waiting = this.#full.length >= CHUNKS_MAX;
    if (this.#open.bytes === 0 || this.#waiting) return;
    this.#full.push(this.#open);
    this.#open = this.#spare ?? newChunk();
    this.#spare = null;
  }

  async #write(): Promise<void> {
    for (let chunk = this.#full[0]; chunk !== undefined; chunk = this.#full[0]) {
      try {
        await this.#append(await this.#named(), chunk.buffer.subarray(0, chunk.bytes));
        if (this.#failed) this.#deps.log.info({ file: this.#path }, 'the access record is written again');
        this.#failed = false;
      } catch (error) {
        this.#lose(chunk, error);
      }
      this.#full.shift();
      chunk.bytes = 0;
      chunk.lines = 0;
      this.#spare = chunk;
      if (this.#waiting) this.#retire();
    }
  }

  async #append(file: FileHandle, bytes: Buffer): Promise<void> {
    // In one write, or lines of several workers would mix.
    const whole = this.#torn ? Buffer.concat([Buffer.from('\n'), bytes]) : bytes;
    const { bytesWritten } = await file.write(whole);
    this.#torn = bytesWritten > 0 && bytesWritten < whole.length;
    if (bytesWritten < whole.length) throw new Error(`${bytesWritten} of ${whole.length} bytes could be written`);
  }

  /** The file that has the name now. */
  async #named(): Promise<FileHandle> {
    const before = this.#file;
    if (before !== null) {
      const [named, ours] = await Promise.all([stat(this.#path), before.stat()].map((told) => told.catch(() => null)));
      if (named !== null && named?.ino === ours?.ino && named?.dev === ours?.dev) return before;
      this.#file = null;
      await before.close().catch(() => undefined);
    }
    this.#torn = false;
    this.#file = await open(this.#path, 'a', 0o640);
    return this.#file;
  }

  #lose(chunk: Chunk, error: unknown): void {
    this.#deps.counters.add('larder_access_log_dropped_total', chunk.lines);
    if (!this.#failed) this.#deps.log.warn({ err: error, file: this.#path }, 'the access record loses lines');
    this.#failed = true;
  }

  #now(): string {
    const second = Math.floor(this.#deps.clock.now() / 1_000);
    if (second === this.#second) return this.#date;
    this.#second = second;
    const [, day, month, year, time] = new Date(second * 1_000).toUTCString().split(' ');
    this.#date = ` - - [${day}/${month}/${year}:${time} +0000] "`;
    return this.#date;
  }
}

/** An IPv4 address as such where the listener takes both kinds. */
export const clientOf = (address: string | undefined): string => address?.replace(/^::ffff:/, '') ?? '-';

const newChunk = (): Chunk => ({ buffer: Buffer.allocUnsafeSlow(CHUNK_BYTES), bytes: 0, lines: 0 });

/** Byte by byte, so that no string of the whole line is made, copied and collected. */
function put(buffer: Buffer, from: number, text: string): number {
  let at = from;
  for (let index = 0; index < text.length; index += 1) buffer[at++] = text.charCodeAt(index);
  return at;
}

/** Nothing that a client sends can end a field or a line. */
function putPlain(buffer: Buffer, from: number, text: string): number {
  const length = Math.min(text.length, TEXT_MAX);
  let at = from;
  for (let index = 0; index < length; index += 1) {
    const code = text.charCodeAt(index);
    if (code >= SPACE && code <= TILDE && code !== QUOTE && code !== BACKSLASH) buffer[at++] = code;
    else at = put(buffer, at, `\\x${(code & 0xff).toString(16).padStart(2, '0')}`);
  }
  return at;
}
