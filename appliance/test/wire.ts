// A client at the socket: sends the very bytes that a test wrote and reads answers as RFC 9112 frames them, strictly.
// What a lenient client would hide (a byte too many, a body on a 304, an answer to nobody's request) is an error here.

import { createConnection, type Socket } from 'node:net';

const DEADLINE_MS = 20_000;

export interface Answer {
  readonly version: string;
  readonly status: number;
  /** Names in lower case, in order, repeated ones kept. */
  readonly fields: readonly (readonly [string, string])[];
  readonly body: Buffer;
  /** False if the peer closed before the framing was satisfied: a short read that every client can see. */
  readonly complete: boolean;
}

/** The value of a field, several lines joined as a list; null if it is absent. */
export function field(answer: Answer, name: string): string | null {
  const values = answer.fields.filter(([key]) => key === name).map(([, value]) => value);
  return values.length === 0 ? null : values.join(', ');
}

/** One connection. Answers are read in order; `method` decides the framing of each. */
export class Wire {
  readonly socket: Socket;
  readonly #deadlineMs: number;
  #input: Buffer = Buffer.alloc(0);
  #ended = false;
  #wake: () => void = () => undefined;

  private constructor(socket: Socket, deadlineMs: number) {
    this.socket = socket;
    this.#deadlineMs = deadlineMs;
    socket.on('data', (chunk: Buffer) => {
      this.#input = this.#input.length === 0 ? chunk : Buffer.concat([this.#input, chunk]);
      this.#wake();
    });
    for (const end of ['end', 'close', 'error'] as const)
      socket.on(end, () => {
        this.#ended = true;
        this.#wake();
      });
  }

  static open(port: number, deadlineMs = DEADLINE_MS): Promise<Wire> {
    return new Promise((resolve, reject) => {
      const socket = createConnection({ port, host: '127.0.0.1' });
      const wire = new Wire(socket, deadlineMs);
      socket.once('connect', () => resolve(wire));
      socket.once('error', reject);
    });
  }

  send(text: string | Buffer): this {
    this.socket.write(typeof text === 'string' ? Buffer.from(text, 'latin1') : text);
    return this;
  }

  /** Whether the peer has closed. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Bytes received and not yet read as part of an answer. */
  get surplus(): Buffer {
    return this.#input;
  }

  /** Resolves when the peer has closed. */
  async closed(): Promise<void> {
    while (!this.#ended) await this.#more();
  }

  destroy(): void {
    this.socket.destroy();
  }

  /** The next final answer; null if the peer closed without a byte of one. Interim answers (1xx) are skipped. */
  async answer(method = 'GET'): Promise<Answer | null> {
    for (;;) {
      const head = await this.#head();
      if (head === null) return null;
      if (head.status >= 200) return { ...head, ...(await this.#body(head, method)) };
    }
  }

  async #head(): Promise<Omit<Answer, 'body' | 'complete'> | null> {
    let end: number;
    while ((end = this.#input.indexOf('\r\n\r\n')) < 0) {
      if (this.#ended) {
        if (this.#input.length === 0) return null;
        throw new Error(`closed inside the header section: ${this.#input.toString('latin1')}`);
      }
      await this.#more();
    }
    const [line, ...rest] = this.#take(end + 4)
      .toString('latin1')
      .slice(0, -4)
      .split('\r\n');
    const start = /^(HTTP\/1\.[01]) (\d{3}) [\t\x20-\x7e\x80-\xff]*$/.exec(line!);
    if (start === null) throw new Error(`not a status line: ${JSON.stringify(line)}`);
    const fields = rest.map((text) => {
      const parts = /^([!#$%&'*+.^_`|~\w-]+):[\t ]*([\t\x20-\x7e\x80-\xff]*?)[\t ]*$/.exec(text);
      if (parts === null) throw new Error(`not a field line: ${JSON.stringify(text)}`);
      return [parts[1]!.toLowerCase(), parts[2]!] as const;
    });
    return { version: start[1]!, status: Number(start[2]), fields };
  }

  /** RFC 9112 6.3, in its order. */
  async #body(
    head: Omit<Answer, 'body' | 'complete'>,
    method: string,
  ): Promise<{ readonly body: Buffer; readonly complete: boolean }> {
    const values = (name: string): string[] => head.fields.filter(([key]) => key === name).map(([, value]) => value);
    if (method === 'HEAD' || head.status === 204 || head.status === 304)
      return { body: Buffer.alloc(0), complete: true };
    const [coding, ...codings] = values('transfer-encoding');
    const [length, ...lengths] = values('content-length');
    if (codings.length + lengths.length > 0 || (coding !== undefined && length !== undefined))
      throw new Error('an answer framed twice');
    if (coding === 'chunked') return this.#chunked();
    if (coding !== undefined) throw new Error(`transfer coding ${coding}`);
    if (length !== undefined) {
      const bytes = Number(length);
      while (this.#input.length < bytes && !this.#ended) await this.#more();
      return { complete: this.#input.length >= bytes, body: this.#take(Math.min(bytes, this.#input.length)) };
    }
    await this.closed();
    return { body: this.#take(this.#input.length), complete: true };
  }

  async #chunked(): Promise<{ readonly body: Buffer; readonly complete: boolean }> {
    const parts: Buffer[] = [];
    for (;;) {
      const line = await this.#line();
      if (line === null) return { body: Buffer.concat(parts), complete: false };
      const size = parseInt(line, 16);
      if (!/^[0-9a-f]+$/i.test(line)) throw new Error(`not a chunk size: ${line}`);
      while (this.#input.length < size + 2 && !this.#ended) await this.#more();
      parts.push(this.#take(Math.min(size, this.#input.length)));
      if (this.#input.length < 2) return { body: Buffer.concat(parts), complete: false };
      if (this.#take(2).toString() !== '\r\n') throw new Error('a chunk without its end');
      if (size === 0) return { body: Buffer.concat(parts), complete: true };
    }
  }

  async #line(): Promise<string | null> {
    let end: number;
    while ((end = this.#input.indexOf('\r\n')) < 0) {
      if (this.#ended) return null;
      await this.#more();
    }
    return this.#take(end + 2)
      .toString('latin1')
      .slice(0, -2);
  }

  #take(bytes: number): Buffer {
    const taken = this.#input.subarray(0, bytes);
    this.#input = this.#input.subarray(bytes);
    return taken;
  }

  async #more(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const ms = this.#deadlineMs;
      const late = setTimeout(() => reject(new Error(`the peer sent nothing for ${ms} ms`)), ms);
      this.#wake = () => {
        clearTimeout(late);
        resolve();
      };
    });
  }
}

export interface Ask {
  readonly method?: string;
  readonly path: string;
  /** Written as they are, one line each: `Range: bytes=0-1`. */
  readonly lines?: readonly string[];
}

export function requestText(ask: Ask): string {
  return [`${ask.method ?? 'GET'} ${ask.path} HTTP/1.1`, 'Host: larder.test', ...(ask.lines ?? []), '', ''].join(
    '\r\n',
  );
}

/** One request on a connection of its own; throws if anything follows the answer. */
export async function ask(port: number, what: Ask, deadlineMs = DEADLINE_MS): Promise<Answer> {
  const wire = await Wire.open(port, deadlineMs);
  try {
    wire.send(requestText({ ...what, lines: [...(what.lines ?? []), 'Connection: close'] }));
    const answer = await wire.answer(what.method);
    if (answer === null) throw new Error(`no answer to ${what.method ?? 'GET'} ${what.path}`);
    await wire.closed();
    if (wire.surplus.length > 0)
      throw new Error(`bytes after the answer: ${wire.surplus.subarray(0, 200).toString('latin1')}`);
    return answer;
  } finally {
    wire.destroy();
  }
}

export interface Part {
  readonly first: number;
  /** Of the last byte, inclusive, as in Content-Range. */
  readonly last: number;
  readonly total: number;
  readonly contentType: string | null;
  readonly body: Buffer;
}

/** `bytes 0-4/10` taken apart; throws on any other form. */
export function contentRange(value: string | null): {
  readonly first: number;
  readonly last: number;
  readonly total: number;
} {
  const parts = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(value ?? '');
  if (parts === null) throw new Error(`not a Content-Range of a 206: ${value}`);
  return { first: Number(parts[1]), last: Number(parts[2]), total: Number(parts[3]) };
}

/** A multipart/byteranges body read by its delimiters alone (RFC 2046 5.1.1), nothing left over between or after. */
export function parts(answer: Answer): Part[] {
  const boundary = /^multipart\/byteranges; ?boundary="?([^"; ]+)"?$/.exec(field(answer, 'content-type') ?? '')?.[1];
  if (boundary === undefined) throw new Error(`not multipart/byteranges: ${field(answer, 'content-type')}`);
  const body = Buffer.concat([Buffer.from('\r\n'), answer.body]);
  const delimiter = Buffer.from(`\r\n--${boundary}`);
  const found: Part[] = [];
  if (body.indexOf(delimiter) !== 0) throw new Error('the body does not open with its boundary');
  for (let at = delimiter.length; ;) {
    const next = body.subarray(at, at + 2).toString('latin1');
    if (next === '--') {
      const epilogue = body.subarray(at + 2).toString('latin1');
      if (epilogue !== '' && epilogue !== '\r\n') throw new Error('bytes after the closing boundary');
      return found;
    }
    if (next !== '\r\n') throw new Error('a boundary that its line does not end');
    const blank = body.indexOf('\r\n\r\n', at);
    const end = body.indexOf(delimiter, blank);
    if (blank < 0 || end < 0) throw new Error('a part without an end');
    const head = new Map(
      body
        .subarray(at + 2, blank)
        .toString('latin1')
        .split('\r\n')
        .map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]),
    );
    const bytes = body.subarray(blank + 4, end);
    const range = contentRange(head.get('content-range') ?? null);
    if (bytes.length !== range.last - range.first + 1) throw new Error('a part that is not as long as it says');
    found.push({ ...range, contentType: head.get('content-type') ?? null, body: bytes });
    at = end + delimiter.length;
  }
}
