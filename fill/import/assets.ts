// Reads assets from the origin: every byte once, hashed as it passes, nothing kept. What the origin says of length and
// validator is checked against what it sent; the digests that appliances verify by come from here and nowhere else.

import { createHash, type Hash } from 'node:crypto';
import { Agent, request, type Dispatcher } from 'undici';
import { DIGEST_CHUNK_BYTES, strongEtag, type Asset } from '../../protocol/catalog.ts';
import { Fault, isFault } from '../../protocol/faults.ts';
import { reasonOf } from '../../runtime/client.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Tally } from './import-progress.ts';

export const ATTEMPTS = 3;
export const BACKOFF_MS = 200;
export const HEADERS_TIMEOUT_MS = 10_000;
export const BODY_TIMEOUT_MS = 30_000;
export const ASSET_BYTES_MAX = 2 ** 40;

export interface OriginReaderOptions {
  /** Base URL without a trailing slash. */
  readonly origin: string;
  readonly connections: number;
  readonly signal: AbortSignal;
  readonly clock: Clock;
  readonly tally: Tally;
}

/** An asset as read; `fetched` is false where the origin said that it has not changed. */
export interface ReadAsset {
  readonly asset: Asset;
  readonly fetched: boolean;
}

type Headers = Dispatcher.ResponseData['headers'];

export class OriginReader {
  readonly #options: OriginReaderOptions;
  readonly #agent: Agent;

  constructor(options: OriginReaderOptions) {
    this.#options = options;
    this.#agent = new Agent({
      connections: options.connections,
      headersTimeout: HEADERS_TIMEOUT_MS,
      bodyTimeout: BODY_TIMEOUT_MS,
      connect: { timeout: HEADERS_TIMEOUT_MS },
    });
  }

  close(): Promise<void> {
    return this.#agent.destroy();
  }

  /** A document with the asset that it is: both from the same answer. */
  async text(path: string, bytesMax: number): Promise<{ readonly text: string; readonly asset: Asset }> {
    return this.#retry(async () => {
      const pieces: Buffer[] = [];
      let bytes = 0;
      const asset = await this.#read(path, {}, (piece) => {
        bytes += piece.length;
        if (bytes > bytesMax) throw new Fault('manifest_invalid', `${path} exceeds ${bytesMax} bytes, the most for it`);
        pieces.push(piece);
      });
      try {
        return {
          text: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.concat(pieces)),
          asset: asset!,
        };
      } catch (error) {
        throw new Fault('manifest_invalid', `${path} line 1: the document is not UTF-8`, { cause: error });
      }
    });
  }

  /** Reads an asset. `known` is what the catalog has of it: its strong ETag may save the transfer. */
  async asset(path: string, known: Asset | null): Promise<ReadAsset> {
    const etag = known?.validator === 'origin' ? known.etag : null;
    return this.#retry(async () => {
      const read = await this.#read(path, etag === null ? {} : { 'if-none-match': etag }, () => undefined);
      return read === null ? { asset: known!, fetched: false } : { asset: read, fetched: true };
    });
  }

  /** A few bytes from the middle; null where the origin serves no ranges. */
  async bytesAt(path: string, at: number, bytes: number): Promise<Buffer | null> {
    return this.#retry(async () => {
      const response = await this.#ask(path, { range: `bytes=${at}-${at + bytes - 1}` });
      if (response.statusCode !== 206) {
        // The whole asset comes instead: it is not wanted, and that it breaks off is no error.
        response.body.on('error', () => undefined).destroy();
        return null;
      }
      try {
        return Buffer.from(await response.body.arrayBuffer());
      } catch (error) {
        throw transportFault(path, error);
      }
    });
  }

  async #read(path: string, headers: Record<string, string>, onPiece: (piece: Buffer) => void): Promise<Asset | null> {
    const response = await this.#ask(path, headers);
    if (response.statusCode === 304 && headers['if-none-match'] !== undefined) {
      await discard(response);
      return null;
    }
    if (response.statusCode !== 200) {
      await discard(response);
      throw refusal(path, response.statusCode, response.headers);
    }
    const length = lengthOf(path, response.headers);
    const digest = new DigestList();
    try {
      for await (const piece of response.body as AsyncIterable<Buffer>) {
        digest.update(piece);
        if (digest.bytes > ASSET_BYTES_MAX)
          throw new Fault('origin_protocol_error', `${path} sends more than ${ASSET_BYTES_MAX} bytes`);
        this.#options.tally.bytesFetched += piece.length;
        this.#options.tally.note(path, digest.bytes, length);
        onPiece(piece);
      }
    } catch (error) {
      throw isFault(error) ? error : transportFault(path, error);
    }
    if (length !== null && digest.bytes !== length)
      throw new Fault('origin_protocol_error', `${path} announced ${length} bytes and sent ${digest.bytes}`);
    return assetOf(path, response.headers, digest);
  }

  async #ask(path: string, headers: Record<string, string>): Promise<Dispatcher.ResponseData> {
    try {
      return await request(`${this.#options.origin}${path}`, {
        dispatcher: this.#agent,
        signal: this.#options.signal,
        headers: { 'accept-encoding': 'identity', ...headers },
      });
    } catch (error) {
      throw transportFault(path, error);
    }
  }

  async #retry<T>(attempt: () => Promise<T>): Promise<T> {
    for (let left = ATTEMPTS - 1; ; left -= 1) {
      try {
        return await attempt();
      } catch (error) {
        if (left === 0 || this.#options.signal.aborted || !isFault(error) || error.spec.retry !== 'same') throw error;
        await this.#options.clock.sleep(BACKOFF_MS * 4 ** (ATTEMPTS - 1 - left), this.#options.signal);
      }
    }
  }
}

/** Frees the connection; a body that breaks off while nobody reads it is no error. */
async function discard(response: Dispatcher.ResponseData): Promise<void> {
  await response.body.dump().catch(() => undefined);
}

/** sha256 per 1 MiB and over those digests, fed in any pieces. */
export class DigestList {
  readonly #chunks: string[] = [];
  #hash: Hash = createHash('sha256');
  #inChunk = 0;
  bytes = 0;

  update(piece: Buffer): void {
    for (let at = 0; at < piece.length;) {
      const take = Math.min(piece.length - at, DIGEST_CHUNK_BYTES - this.#inChunk);
      this.#hash.update(piece.subarray(at, at + take));
      at += take;
      this.#inChunk += take;
      if (this.#inChunk === DIGEST_CHUNK_BYTES) this.#seal();
    }
    this.bytes += piece.length;
  }

  end(): Asset['digest'] {
    if (this.#inChunk > 0) this.#seal();
    const root = createHash('sha256');
    for (const chunk of this.#chunks) root.update(Buffer.from(chunk, 'hex'));
    return { root: root.digest('hex'), chunks: this.#chunks };
  }

  #seal(): void {
    this.#chunks.push(this.#hash.digest('hex'));
    this.#hash = createHash('sha256');
    this.#inChunk = 0;
  }
}

/** Null for a chunked body, whose end is marked. A body that ends with the connection may have been cut off anywhere. */
function lengthOf(path: string, headers: Headers): number | null {
  if (headers['content-encoding'] !== undefined && headers['content-encoding'] !== 'identity')
    throw new Fault(
      'origin_protocol_error',
      `${path} came with Content-Encoding ${String(headers['content-encoding'])}, identity was asked for`,
    );
  const length = headers['content-length'];
  if (typeof length === 'string' && /^\d{1,15}$/.test(length)) return Number(length);
  if (String(headers['transfer-encoding']).toLowerCase() === 'chunked') return null;
  throw new Fault(
    'origin_protocol_error',
    `${path} came without a length, so that a body cut off could not be told from a whole one`,
  );
}

function assetOf(path: string, headers: Headers, digest: DigestList): Asset {
  const list = digest.end();
  const etag = strongEtag.safeParse(headers['etag']);
  const modified = headers['last-modified'];
  return {
    path,
    bytes: digest.bytes,
    etag: etag.success ? etag.data : `"${list.root.slice(0, 32)}"`,
    validator: etag.success ? 'origin' : 'digest',
    contentType: contentTypeOf(path, headers),
    lastModified: typeof modified === 'string' && Number.isFinite(Date.parse(modified)) ? modified.slice(0, 64) : null,
    digest: list,
  };
}

const CONTENT_TYPES: Readonly<Record<string, string>> = {
  m3u8: 'application/vnd.apple.mpegurl',
  mpd: 'application/dash+xml',
  mp4: 'video/mp4',
  m4s: 'video/iso.segment',
  m4a: 'audio/mp4',
  m4v: 'video/mp4',
  ts: 'video/mp2t',
  vtt: 'text/vtt',
};

function contentTypeOf(path: string, headers: Headers): string {
  const given = headers['content-type'];
  if (typeof given === 'string' && given !== '') return given.slice(0, 255);
  return CONTENT_TYPES[/\.([a-z0-9]+)$/i.exec(path)?.[1]?.toLowerCase() ?? ''] ?? 'application/octet-stream';
}

function refusal(path: string, status: number, headers: Headers): Fault {
  const where =
    headers['location'] === undefined ? '' : ` to ${String(headers['location']).slice(0, 200)}, which is not followed`;
  // An error of the server's own may pass: it is retried, as the table says of an origin that cannot be reached.
  if (status >= 500)
    return new Fault('origin_unreachable', `${path}: the origin answered ${status}`, { detail: { status } });
  return new Fault('origin_refused', `${path}: the origin answered ${status}${where}`, { detail: { status } });
}

function transportFault(path: string, error: unknown): Fault {
  const code = (error as { code?: string }).code ?? '';
  const late = /TIMEOUT/.test(code) || (error as Error).name === 'TimeoutError';
  return new Fault(late ? 'origin_timeout' : 'origin_unreachable', `${path}: ${reasonOf(error)}`, { cause: error });
}
