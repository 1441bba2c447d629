// The access log: a line for each request that could be parsed, in the Combined Log Format, and three fields behind it: the requested
// range, what the cache did (or the fault's code), and the seconds until the last byte was handed to the kernel.
//
//   192.0.2.7 - - [20/Nov/2026:21:40:03 +0000] "GET /film.mp4 HTTP/1.1" 206 65536 "-" "Lavf/61.1" "bytes=0-65535" hit 0.018
//
// Lines are buffered and appended once a second, whole, so that workers can share a file. To rotate the file, rename it: within a
// second lines go to a new one. A client never waits for its line: lines that find no room are dropped, and counted.

import type { IncomingMessage } from 'node:http';
import { open, stat, type FileHandle } from 'node:fs/promises';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import type { Counters } from '../metrics.ts';

const FLUSH_MS = 1_000;
const CHUNK_BYTES = 2 ** 18;
/** Full chunks that may wait for a slow disk. */
const CHUNKS_MAX = 32;
const TEXT_MAX = 1_000;
/** Four texts with every byte escaped, and the rest of the line. */
const LINE_BYTES_MAX = 4 * TEXT_MAX * 4 + 1_000;

const SPACE = 0x20;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const TILDE = 0x7e;

/** The fields of a line that come from the request. */
export interface LoggedRequest {
  /** Its address, or `-`. */
  readonly client: string;
  /** The request line. */
  readonly line: string;
  readonly range: string;
  readonly referer: string;
  readonly agent: string;
  /** When the request was parsed, on the monotonic clock. */
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
  readonly #requests = new WeakMap<IncomingMessage, LoggedRequest>();
  #file: FileHandle | null = null;
  #current: Chunk = newChunk();
  readonly #full: Chunk[] = [];
  #spare: Chunk | null = null;
  #writing: Promise<void> | null = null;
  /** The current chunk is to be queued as soon as there is room for it. */
  #isWaiting = false;
  /** The file ends in the middle of a line. */
  #isTorn = false;
  #isFailing = false;
  #second = -1;
  #date = '';

  constructor(path: string, deps: AccessLogDeps) {
    this.#path = path;
    this.#deps = deps;
    deps.clock.setInterval(() => void this.flush(), FLUSH_MS).unref();
  }

  /** To be called when node:http has parsed the request: the client's address may be gone later. */
  begin(request: IncomingMessage): void {
    const { headers } = request;
    this.#requests.set(request, {
      client: clientOf(request.socket.remoteAddress),
      line: `${request.method} ${request.url} HTTP/${request.httpVersion}`,
      range: headers.range ?? '-',
      referer: headers.referer ?? '-',
      agent: headers['user-agent'] ?? '-',
      sinceMs: this.#deps.clock.monotonic(),
    });
  }

  end(request: IncomingMessage, response: LoggedResponse): void {
    const logged = this.#requests.get(request);
    if (logged !== undefined) this.add(logged, response);
  }

  add(logged: LoggedRequest, { status, bytes, outcome }: LoggedResponse): void {
    if (this.#current.bytes + LINE_BYTES_MAX > CHUNK_BYTES) void this.flush();
    const chunk = this.#current;
    if (chunk.bytes + LINE_BYTES_MAX > CHUNK_BYTES) {
      this.#deps.counters.add('larder_access_log_dropped_total');
      return;
    }
    const { buffer } = chunk;
    const ms = Math.round(this.#deps.clock.monotonic() - logged.sinceMs);
    let at = put(buffer, chunk.bytes, logged.client);
    at = put(buffer, at, this.#timestamp());
    at = putEscaped(buffer, at, logged.line);
    at = put(buffer, at, `" ${status} ${bytes} "`);
    at = putEscaped(buffer, at, logged.referer);
    at = put(buffer, at, '" "');
    at = putEscaped(buffer, at, logged.agent);
    at = put(buffer, at, '" "');
    at = putEscaped(buffer, at, logged.range);
    at = put(buffer, at, `" ${outcome} ${Math.floor(ms / 1_000)}.${String(ms % 1_000).padStart(3, '0')}\n`);
    chunk.bytes = at;
    chunk.lines += 1;
  }

  /** Resolves when every line so far has been written, or dropped. */
  flush(): Promise<void> {
    this.#queueCurrent();
    this.#writing ??= this.#write().finally(() => (this.#writing = null));
    return this.#writing;
  }

  #queueCurrent(): void {
    this.#isWaiting = this.#full.length >= CHUNKS_MAX;
    if (this.#current.bytes === 0 || this.#isWaiting) return;
    this.#full.push(this.#current);
    this.#current = this.#spare ?? newChunk();
    this.#spare = null;
  }

  async #write(): Promise<void> {
    for (let chunk = this.#full[0]; chunk !== undefined; chunk = this.#full[0]) {
      try {
        await this.#append(await this.#currentFile(), chunk.buffer.subarray(0, chunk.bytes));
        if (this.#isFailing) this.#deps.log.info({ file: this.#path }, 'the access log is written again');
        this.#isFailing = false;
      } catch (error) {
        this.#drop(chunk, error);
      }
      this.#full.shift();
      chunk.bytes = 0;
      chunk.lines = 0;
      this.#spare = chunk;
      if (this.#isWaiting) this.#queueCurrent();
    }
  }

  async #append(file: FileHandle, bytes: Buffer): Promise<void> {
    // One write, or lines of several workers would be mixed.
    const whole = this.#isTorn ? Buffer.concat([Buffer.from('\n'), bytes]) : bytes;
    const { bytesWritten } = await file.write(whole);
    this.#isTorn = bytesWritten > 0 && bytesWritten < whole.length;
    if (bytesWritten < whole.length) throw new Error(`${bytesWritten} of ${whole.length} bytes could be written`);
  }

  /** The file that bears the name now. */
  async #currentFile(): Promise<FileHandle> {
    const before = this.#file;
    if (before !== null) {
      const [named, ours] = await Promise.all([stat(this.#path), before.stat()].map((each) => each.catch(() => null)));
      if (named !== null && named?.ino === ours?.ino && named?.dev === ours?.dev) return before;
      this.#file = null;
      await before.close().catch(() => undefined);
    }
    this.#isTorn = false;
    this.#file = await open(this.#path, 'a', 0o640);
    return this.#file;
  }

  #drop(chunk: Chunk, error: unknown): void {
    this.#deps.counters.add('larder_access_log_dropped_total', chunk.lines);
    if (!this.#isFailing) this.#deps.log.warn({ err: error, file: this.#path }, 'the access log loses lines');
    this.#isFailing = true;
  }

  #timestamp(): string {
    const second = Math.floor(this.#deps.clock.now() / 1_000);
    if (second === this.#second) return this.#date;
    this.#second = second;
    const [, day, month, year, time] = new Date(second * 1_000).toUTCString().split(' ');
    this.#date = ` - - [${day}/${month}/${year}:${time} +0000] "`;
    return this.#date;
  }
}

/** An IPv4 address without the prefix that a dual-stack listener gives it. */
export const clientOf = (address: string | undefined): string => address?.replace(/^::ffff:/, '') ?? '-';

const newChunk = (): Chunk => ({ buffer: Buffer.allocUnsafeSlow(CHUNK_BYTES), bytes: 0, lines: 0 });

/** Writes byte by byte, so that no string of the whole line is made, copied and collected. */
function put(buffer: Buffer, from: number, text: string): number {
  let at = from;
  for (let index = 0; index < text.length; index += 1) buffer[at++] = text.charCodeAt(index);
  return at;
}

/** Escapes what a client sends, so that it can end neither a field nor a line. */
function putEscaped(buffer: Buffer, from: number, text: string): number {
  const length = Math.min(text.length, TEXT_MAX);
  let at = from;
  for (let index = 0; index < length; index += 1) {
    const code = text.charCodeAt(index);
    if (code >= SPACE && code <= TILDE && code !== QUOTE && code !== BACKSLASH) buffer[at++] = code;
    else at = put(buffer, at, `\\x${(code & 0xff).toString(16).padStart(2, '0')}`);
  }
  return at;
}
