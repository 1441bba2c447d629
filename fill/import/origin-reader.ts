// Reads assets from the origin: every byte once, hashed as it arrives, nothing stored. Length and validator are checked against
// the body. The digests that appliances verify by are computed here and nowhere else.

import { createHash, type Hash } from 'node:crypto';
import { Agent, request, type Dispatcher } from 'undici';
import { DIGEST_CHUNK_BYTES, strongEtag, type Asset } from '../../protocol/catalog.ts';
import { Fault, isFault } from '../../protocol/faults.ts';
import { reasonOf } from '../../runtime/client.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { ProgressTracker } from './import-progress.ts';

const ATTEMPTS = 3;
/** Before the second attempt; four times as long before each further one. */
const BACKOFF_MS = 200;
const HEADERS_TIMEOUT_MS = 10_000;
const BODY_TIMEOUT_MS = 30_000;
const ASSET_BYTES_MAX = 2 ** 40;

interface OriginReaderOptions {
  /** Base URL without a trailing slash. */
  readonly origin: string;
  readonly connections: number;
  readonly signal: AbortSignal;
  readonly clock: Clock;
  readonly tracker: ProgressTracker;
}

interface TextDocument {
  readonly text: string;
  /** The document as an asset, from the same response. */
  readonly asset: Asset;
}

interface ReadResult {
  readonly asset: Asset;
  /** False if the origin answered that the asset has not changed (304). */
  readonly modified: boolean;
}

type Response = Dispatcher.ResponseData;
type ResponseHeaders = Response['headers'];

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

  /** Throws `manifest_invalid` if the document is too large or not UTF-8. */
  async readText(path: string, bytesMax: number): Promise<TextDocument> {
    return this.#withRetries(async () => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      const asset = await this.#fetchAsset(path, null, (chunk) => {
        bytes += chunk.length;
        if (bytes > bytesMax) throw new Fault('manifest_invalid', `${path} exceeds ${bytesMax} bytes, the most for it`);
        chunks.push(chunk);
      });
      return { text: decodeUtf8(path, Buffer.concat(chunks)), asset: asset! };
    });
  }

  /** Reads an asset, conditionally if the previous revision of its title had it with a strong ETag of the origin. */
  async readAsset(path: string, previous: Asset | null): Promise<ReadResult> {
    const etag = previous?.validator === 'origin' ? previous.etag : null;
    return this.#withRetries(async () => {
      const asset = await this.#fetchAsset(path, etag, () => undefined);
      if (asset === null) return { asset: previous!, modified: false };
      return { asset: isTagWorthless(asset, previous) ? withoutOriginTag(asset) : asset, modified: true };
    });
  }

  /** Some bytes of an asset; null if the origin serves no ranges. */
  async readBytes(path: string, offset: number, bytes: number): Promise<Buffer | null> {
    return this.#withRetries(async () => {
      const response = await this.#request(path, { range: `bytes=${offset}-${offset + bytes - 1}` });
      if (response.statusCode !== 206) {
        // The whole asset follows instead. Destroying it makes it fail, which is no error here.
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

  /** Null if the origin answers 304 to the ETag. */
  async #fetchAsset(path: string, etag: string | null, onChunk: (chunk: Buffer) => void): Promise<Asset | null> {
    const response = await this.#request(path, etag === null ? {} : { 'if-none-match': etag });
    if (response.statusCode === 304 && etag !== null) {
      await discard(response);
      return null;
    }
    if (response.statusCode !== 200) {
      await discard(response);
      throw statusFault(path, response.statusCode, response.headers);
    }
    const lengthBytes = contentLength(path, response.headers);
    const digest = await this.#hashBody(path, response, lengthBytes, onChunk);
    if (lengthBytes !== null && digest.bytes !== lengthBytes)
      throw new Fault('origin_protocol_error', `${path} announced ${lengthBytes} bytes and sent ${digest.bytes}`);
    return assetOf(path, response.headers, digest);
  }

  async #hashBody(
    path: string,
    response: Response,
    lengthBytes: number | null,
    onChunk: (chunk: Buffer) => void,
  ): Promise<DigestBuilder> {
    const { tracker } = this.#options;
    const digest = new DigestBuilder();
    try {
      for await (const chunk of response.body as AsyncIterable<Buffer>) {
        digest.update(chunk);
        if (digest.bytes > ASSET_BYTES_MAX)
          throw new Fault('origin_protocol_error', `${path} sends more than ${ASSET_BYTES_MAX} bytes`);
        tracker.bytesFetched += chunk.length;
        tracker.setReceived(path, digest.bytes, lengthBytes);
        onChunk(chunk);
      }
    } catch (error) {
      throw isFault(error) ? error : transportFault(path, error);
    }
    return digest;
  }

  async #request(path: string, headers: Record<string, string>): Promise<Response> {
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

  async #withRetries<T>(attempt: () => Promise<T>): Promise<T> {
    const { signal, clock } = this.#options;
    for (let left = ATTEMPTS - 1; ; left -= 1) {
      try {
        return await attempt();
      } catch (error) {
        if (left === 0 || signal.aborted || !isFault(error) || error.spec.retry !== 'same') throw error;
        await clock.sleep(BACKOFF_MS * 4 ** (ATTEMPTS - 1 - left), signal);
      }
    }
  }
}

/** Frees the connection. A body that fails meanwhile is no error, because nobody reads it. */
async function discard(response: Response): Promise<void> {
  await response.body.dump().catch(() => undefined);
}

function decodeUtf8(path: string, body: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(body);
  } catch (error) {
    throw new Fault('manifest_invalid', `${path} line 1: the document is not UTF-8`, { cause: error });
  }
}

/** Builds a digest list: the sha256 of each 1 MiB chunk and the sha256 of those digests. */
class DigestBuilder {
  bytes = 0;
  readonly #chunkDigests: string[] = [];
  #hash: Hash = createHash('sha256');
  #chunkBytes = 0;

  /** Data of any length, in order. */
  update(data: Buffer): void {
    for (let offset = 0; offset < data.length;) {
      const length = Math.min(data.length - offset, DIGEST_CHUNK_BYTES - this.#chunkBytes);
      this.#hash.update(data.subarray(offset, offset + length));
      offset += length;
      this.#chunkBytes += length;
      if (this.#chunkBytes === DIGEST_CHUNK_BYTES) this.#endChunk();
    }
    this.bytes += data.length;
  }

  end(): Asset['digest'] {
    if (this.#chunkBytes > 0) this.#endChunk();
    const root = createHash('sha256');
    for (const digest of this.#chunkDigests) root.update(Buffer.from(digest, 'hex'));
    return { root: root.digest('hex'), chunks: this.#chunkDigests };
  }

  #endChunk(): void {
    this.#chunkDigests.push(this.#hash.digest('hex'));
    this.#hash = createHash('sha256');
    this.#chunkBytes = 0;
  }
}

/**
 * Null for a chunked body, whose end is marked. A body that ends with the connection is refused: it may have been cut off
 * anywhere (RFC 9112 8).
 */
function contentLength(path: string, headers: ResponseHeaders): number | null {
  const encoding = headers['content-encoding'];
  if (encoding !== undefined && String(encoding).trim().toLowerCase() !== 'identity')
    throw new Fault(
      'origin_protocol_error',
      `${path} came with Content-Encoding ${String(encoding)}, identity was asked for`,
    );
  const length = headers['content-length'];
  if (typeof length === 'string' && /^\d{1,15}$/.test(length)) return Number(length);
  if (String(headers['transfer-encoding']).toLowerCase() === 'chunked') return null;
  throw new Fault(
    'origin_protocol_error',
    `${path} came without a length, so that a body cut off could not be told from a whole one`,
  );
}

/** Whether the origin has changed the bytes and kept the tag, now or at an earlier import. */
function isTagWorthless(asset: Asset, previous: Asset | null): boolean {
  if (previous === null) return false;
  const isUnchanged = asset.digest.root === previous.digest.root;
  return previous.validator === 'digest' || (!isUnchanged && asset.etag === previous.etag);
}

const withoutOriginTag = (asset: Asset): Asset => ({ ...asset, etag: tagOf(asset.digest), validator: 'digest' });

/** The entity tag of an asset for which the origin has none that names its bytes. */
const tagOf = ({ root }: Asset['digest']): string => `"${root.slice(0, 32)}"`;

function assetOf(path: string, headers: ResponseHeaders, digest: DigestBuilder): Asset {
  const etag = strongEtag.safeParse(headers['etag']);
  const modified = headers['last-modified'];
  const digestList = digest.end();
  return {
    path,
    bytes: digest.bytes,
    etag: etag.success ? etag.data : tagOf(digestList),
    validator: etag.success ? 'origin' : 'digest',
    contentType: contentType(path, headers),
    lastModified: typeof modified === 'string' && Number.isFinite(Date.parse(modified)) ? modified.slice(0, 64) : null,
    digest: digestList,
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

function contentType(path: string, headers: ResponseHeaders): string {
  const sent = headers['content-type'];
  if (typeof sent === 'string' && sent !== '') return sent.slice(0, 255);
  return CONTENT_TYPES[/\.([a-z0-9]+)$/i.exec(path)?.[1]?.toLowerCase() ?? ''] ?? 'application/octet-stream';
}

function statusFault(path: string, status: number, headers: ResponseHeaders): Fault {
  const target =
    headers['location'] === undefined ? '' : ` to ${String(headers['location']).slice(0, 200)}, which is not followed`;
  // A server error may be temporary, so it is a fault that is retried.
  if (status >= 500)
    return new Fault('origin_unreachable', `${path}: the origin answered ${status}`, { detail: { status } });
  return new Fault('origin_refused', `${path}: the origin answered ${status}${target}`, { detail: { status } });
}

function transportFault(path: string, error: unknown): Fault {
  const code = (error as { code?: string }).code ?? '';
  const timedOut = /TIMEOUT/.test(code) || (error as Error).name === 'TimeoutError';
  return new Fault(timedOut ? 'origin_timeout' : 'origin_unreachable', `${path}: ${reasonOf(error)}`, { cause: error });
}
