// A double of the origin: an HTTP server that serves files with validators and ranges, and misbehaves where the test says so.

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';

export type Misbehaviour = (request: IncomingMessage, response: ServerResponse, body: Buffer) => void;

export class OriginDouble {
  readonly files = new Map<string, Buffer>();
  readonly misbehaviours = new Map<string, Misbehaviour>();
  /** Requests answered, with their status. */
  readonly log: { readonly path: string; readonly status: number }[] = [];
  /** Sends weak ETags instead of strong ones. */
  weakEtags = false;
  /** Awaited before each answer. */
  gate: (path: string) => Promise<void> = async () => undefined;
  readonly #server: Server;

  constructor() {
    this.#server = createServer((request, response) => void this.#answer(request, response));
  }

  async start(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  put(path: string, body: string | Buffer): void {
    this.files.set(path, Buffer.from(body));
  }

  /** Serves every file of a directory below a path. */
  putTree(directory: string, path: string): void {
    for (const name of readdirSync(directory)) {
      const file = join(directory, name);
      if (statSync(file).isDirectory()) this.putTree(file, `${path}/${name}`);
      else this.files.set(`${path}/${name}`, readFileSync(file));
    }
  }

  statusesOf(path: string): number[] {
    return this.log.filter((row) => row.path === path).map((row) => row.status);
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url!;
    response.on('finish', () => this.log.push({ path, status: response.statusCode }));
    await this.gate(path);
    const body = this.files.get(path);
    const misbehaviour = this.misbehaviours.get(path);
    if (misbehaviour !== undefined) return misbehaviour(request, response, body ?? Buffer.alloc(0));
    if (body === undefined) return void response.writeHead(404).end('not here');
    const tag = `"${createHash('sha256').update(body).digest('hex').slice(0, 16)}"`;
    response.setHeader('etag', this.weakEtags ? `W/${tag}` : tag);
    response.setHeader('last-modified', 'Tue, 05 May 2026 05:05:05 GMT');
    response.setHeader('content-type', path.endsWith('.m3u8') ? 'application/vnd.apple.mpegurl' : 'video/mp4');
    if (!this.weakEtags && request.headers['if-none-match'] === tag) return void response.writeHead(304).end();
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
    if (range === null) return void response.writeHead(200, { 'content-length': body.length }).end(body);
    const part = body.subarray(Number(range[1]), Number(range[2]) + 1);
    response.writeHead(206, {
      'content-length': part.length,
      'content-range': `bytes ${range[1]}-${range[2]}/${body.length}`,
    });
    response.end(part);
  }
}

/** A small title with two video renditions and one audio rendition, in HLS and DASH over the same segments: 13 assets in HLS. */
export function putFilm(origin: OriginDouble, base: string, filler = 'x'): void {
  const playlist = ['#EXTM3U', '#EXT-X-TARGETDURATION:4', '#EXT-X-MAP:URI="init.mp4"'];
  const segments = ['#EXTINF:4,', '1.m4s', '#EXTINF:4,', '2.m4s', '#EXT-X-ENDLIST'];
  for (const rendition of ['video/low', 'video/high', 'audio/en']) {
    origin.put(`${base}${rendition}/index.m3u8`, [...playlist, ...segments].join('\n'));
    origin.put(`${base}${rendition}/init.mp4`, `init of ${rendition}`);
    for (const n of [1, 2]) origin.put(`${base}${rendition}/${n}.m4s`, `${rendition} ${n} `.repeat(1000) + filler);
  }
  origin.put(
    `${base}master.m3u8`,
    [
      '#EXTM3U',
      '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="English",LANGUAGE="en",URI="audio/en/index.m3u8"',
      '#EXT-X-STREAM-INF:BANDWIDTH=3000,RESOLUTION=256x144,AUDIO="a"',
      'video/low/index.m3u8',
      '#EXT-X-STREAM-INF:BANDWIDTH=9000,RESOLUTION=640x360,AUDIO="a"',
      'video/high/index.m3u8',
    ].join('\n'),
  );
  const set = (kind: string, ids: readonly string[]): string =>
    `<AdaptationSet contentType="${kind}"><SegmentTemplate duration="4" initialization="${kind}/$RepresentationID$/init.mp4" media="${kind}/$RepresentationID$/$Number$.m4s"/>${ids.map((id) => `<Representation id="${id}" bandwidth="2500"/>`).join('')}</AdaptationSet>`;
  origin.put(
    `${base}manifest.mpd`,
    `<MPD type="static" mediaPresentationDuration="PT8S">\n<Period>${set('video', ['low', 'high'])}${set('audio', ['en'])}</Period>\n</MPD>`,
  );
}
