// An HTTP/1.x client at the socket: it sends exactly the bytes that a test wrote and reads responses strictly as RFC 9112
// frames them. What a lenient client would hide is an error here: a byte too many, a body on a 304, an unsolicited response.

import { createConnection, type Socket } from 'node:net';
import { systemClock } from '../../runtime/clock.ts';

/** Longest time without a byte from the peer. It only catches a hang. */
const IDLE_MS_MAX = 20_000;

export interface HttpResponse {
  readonly version: string;
  readonly status: number;
  /** Names in lower case, in order; repeated fields are kept apart. */
  readonly fields: readonly (readonly [string, string])[];
  readonly body: Buffer;
  /** False if the peer closed before the framing was satisfied: a short read, which every client can detect. */
  readonly complete: boolean;
}

type ResponseHead = Omit<HttpResponse, 'body' | 'complete'>;

/** The value of a field, several lines joined as a list; null if it is absent. */
export function field(response: HttpResponse, name: string): string | null {
  const values = response.fields.filter(([key]) => key === name).map(([, value]) => value);
  return values.length === 0 ? null : values.join(', ');
}

/** One connection. Responses are read in order. */
export class HttpConnection {
  readonly socket: Socket;
  readonly #idleMsMax: number;
  /** Received and not consumed. Joined on demand only: a body of many megabytes comes in hundreds of chunks. */
  #chunks: Buffer[] = [];
  #bytes = 0;
  #ended = false;
  #wake: () => void = () => undefined;

  private constructor(socket: Socket, idleMsMax: number) {
    this.socket = socket;
    this.#idleMsMax = idleMsMax;
    socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#bytes += chunk.length;
      this.#wake();
    });
    for (const end of ['end', 'close', 'error'] as const)
      socket.on(end, () => {
        this.#ended = true;
        this.#wake();
      });
  }

  static open(port: number, idleMsMax = IDLE_MS_MAX): Promise<HttpConnection> {
    return new Promise((resolve, reject) => {
      const socket = createConnection({ port, host: '127.0.0.1' });
      const connection = new HttpConnection(socket, idleMsMax);
      socket.once('connect', () => resolve(connection));
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

  /** Bytes received that belong to no response read so far. */
  get unread(): Buffer {
    if (this.#chunks.length !== 1) this.#chunks = [Buffer.concat(this.#chunks)];
    return this.#chunks[0]!;
  }

  /** Resolves when the peer has closed. */
  async closed(): Promise<void> {
    while (!this.#ended) await this.#more();
  }

  destroy(): void {
    this.socket.destroy();
  }

  /**
   * The next final response; null if the peer closed without a byte of one. Interim responses (1xx) are skipped. The method
   * of the request decides how the response is framed.
   */
  async readResponse(method = 'GET'): Promise<HttpResponse | null> {
    for (;;) {
      const head = await this.#readHead();
      if (head === null) return null;
      if (head.status >= 200) return { ...head, ...(await this.#readBody(head, method)) };
    }
  }

  async #readHead(): Promise<ResponseHead | null> {
    let end: number;
    while ((end = this.unread.indexOf('\r\n\r\n')) < 0) {
      if (this.#ended) {
        if (this.#bytes === 0) return null;
        throw new Error(`closed inside the header section: ${this.unread.toString('latin1')}`);
      }
      await this.#more();
    }
    const [line, ...rest] = this.#consume(end + 4)
      .toString('latin1')
      .slice(0, -4)
      .split('\r\n');
    const start = /^(HTTP\/1\.[01]) (\d{3}) [\t\x20-\x7e\x80-\xff]*$/.exec(line!);
    if (start === null) throw new Error(`not a status line: ${JSON.stringify(line)}`);
    const fields = rest.map((text) => {
      const match = /^([!#$%&'*+.^_`|~\w-]+):[\t ]*([\t\x20-\x7e\x80-\xff]*?)[\t ]*$/.exec(text);
      if (match === null) throw new Error(`not a field line: ${JSON.stringify(text)}`);
      return [match[1]!.toLowerCase(), match[2]!] as const;
    });
    return { version: start[1]!, status: Number(start[2]), fields };
  }

  /** The rules of RFC 9112 6.3, in its order. */
  async #readBody(head: ResponseHead, method: string): Promise<{ readonly body: Buffer; readonly complete: boolean }> {
    const values = (name: string): string[] => head.fields.filter(([key]) => key === name).map(([, value]) => value);
    if (method === 'HEAD' || head.status === 204 || head.status === 304)
      return { body: Buffer.alloc(0), complete: true };
    const [coding, ...codings] = values('transfer-encoding');
    const [length, ...lengths] = values('content-length');
    if (codings.length + lengths.length > 0 || (coding !== undefined && length !== undefined))
      throw new Error('the response is framed twice');
    if (coding === 'chunked') return this.#readChunked();
    if (coding !== undefined) throw new Error(`transfer coding ${coding}`);
    if (length !== undefined) {
      const bytes = Number(length);
      while (this.#bytes < bytes && !this.#ended) await this.#more();
      return { complete: this.#bytes >= bytes, body: this.#consume(Math.min(bytes, this.#bytes)) };
    }
    await this.closed();
    return { body: this.#consume(this.#bytes), complete: true };
  }

  async #readChunked(): Promise<{ readonly body: Buffer; readonly complete: boolean }> {
    const chunks: Buffer[] = [];
    for (;;) {
      const line = await this.#readLine();
      if (line === null) return { body: Buffer.concat(chunks), complete: false };
      const size = parseInt(line, 16);
      if (!/^[0-9a-f]+$/i.test(line)) throw new Error(`not a chunk size: ${line}`);
      while (this.#bytes < size + 2 && !this.#ended) await this.#more();
      chunks.push(this.#consume(Math.min(size, this.#bytes)));
      if (this.#bytes < 2) return { body: Buffer.concat(chunks), complete: false };
      if (this.#consume(2).toString() !== '\r\n') throw new Error('a chunk without its CRLF');
      if (size === 0) return { body: Buffer.concat(chunks), complete: true };
    }
  }

  async #readLine(): Promise<string | null> {
    let end: number;
    while ((end = this.unread.indexOf('\r\n')) < 0) {
      if (this.#ended) return null;
      await this.#more();
    }
    return this.#consume(end + 2)
      .toString('latin1')
      .slice(0, -2);
  }

  #consume(bytes: number): Buffer {
    const { unread } = this;
    this.#chunks = [unread.subarray(bytes)];
    this.#bytes = this.#chunks[0]!.length;
    return unread.subarray(0, bytes);
  }

  async #more(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const ms = this.#idleMsMax;
      const deadline = systemClock.setTimeout(() => reject(new Error(`the peer sent nothing for ${ms} ms`)), ms);
      this.#wake = () => {
        systemClock.clear(deadline);
        resolve();
      };
    });
  }
}

export interface RequestSpec {
  readonly method?: string;
  readonly path: string;
  /** Field lines exactly as they are sent, one each: `Range: bytes=0-1`. */
  readonly lines?: readonly string[];
}

export function requestText({ method = 'GET', path, lines = [] }: RequestSpec): string {
  return [`${method} ${path} HTTP/1.1`, 'Host: larder.test', ...lines, '', ''].join('\r\n');
}

/** One request on a connection of its own. Throws if anything follows the response. */
export async function sendRequest(port: number, spec: RequestSpec, idleMsMax = IDLE_MS_MAX): Promise<HttpResponse> {
  const connection = await HttpConnection.open(port, idleMsMax);
  try {
    connection.send(requestText({ ...spec, lines: [...(spec.lines ?? []), 'Connection: close'] }));
    const response = await connection.readResponse(spec.method);
    if (response === null) throw new Error(`no response to ${spec.method ?? 'GET'} ${spec.path}`);
    await connection.closed();
    if (connection.unread.length > 0)
      throw new Error(`bytes after the response: ${connection.unread.subarray(0, 200).toString('latin1')}`);
    return response;
  } finally {
    connection.destroy();
  }
}

export interface BodyPart {
  readonly first: number;
  /** Position of the last byte, inclusive, as in Content-Range. */
  readonly last: number;
  readonly total: number;
  readonly contentType: string | null;
  readonly body: Buffer;
}

/** Parses `bytes 0-4/10`; throws on any other form. */
export function parseContentRange(value: string | null): {
  readonly first: number;
  readonly last: number;
  readonly total: number;
} {
  const match = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(value ?? '');
  if (match === null) throw new Error(`not a Content-Range of a 206: ${value}`);
  return { first: Number(match[1]), last: Number(match[2]), total: Number(match[3]) };
}

/** Parses a multipart/byteranges body by its delimiters alone (RFC 2046 5.1.1); throws if bytes are left over. */
export function multipartParts(response: HttpResponse): BodyPart[] {
  const boundary = /^multipart\/byteranges; ?boundary="?([^"; ]+)"?$/.exec(field(response, 'content-type') ?? '')?.[1];
  if (boundary === undefined) throw new Error(`not multipart/byteranges: ${field(response, 'content-type')}`);
  const body = Buffer.concat([Buffer.from('\r\n'), response.body]);
  const delimiter = Buffer.from(`\r\n--${boundary}`);
  const parts: BodyPart[] = [];
  if (body.indexOf(delimiter) !== 0) throw new Error('the body does not open with its boundary');
  for (let at = delimiter.length; ;) {
    const next = body.subarray(at, at + 2).toString('latin1');
    if (next === '--') {
      const epilogue = body.subarray(at + 2).toString('latin1');
      if (epilogue !== '' && epilogue !== '\r\n') throw new Error('bytes after the closing boundary');
      return parts;
    }
    if (next !== '\r\n') throw new Error('a boundary that is not followed by CRLF');
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
    const range = parseContentRange(head.get('content-range') ?? null);
    if (bytes.length !== range.last - range.first + 1)
      throw new Error('a part of another length than its Content-Range');
    parts.push({ ...range, contentType: head.get('content-type') ?? null, body: bytes });
    at = end + delimiter.length;
  }
}
