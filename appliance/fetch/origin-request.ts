// What a fetch request asks of the origin, and with whom the response may be shared. Pure, but for the functions that read a body.

import { parseDirectives, type Directives } from '../http/cache-control.ts';
import type { RequestCredentials } from '../http/freshness.ts';
import { primaryKeyOf } from '../http/vary.ts';
import type { FetchRequest } from '../link/messages.ts';
import { BLOCK_BYTES } from '../store/block-file.ts';
import type { Entry } from '../store/volume.ts';
import { FETCH_BLOCKS_MAX } from './inflight.ts';
import type { OriginRelay } from './origin.ts';

/** Reasons not to store a response that lie in the request: another client's response may be stored. */
export const REQUEST_DEPENDENT: ReadonlySet<string> = new Set(['authorization', 'cookie']);

export const credentialsOf = (headers: Readonly<Record<string, string>>): RequestCredentials => ({
  authorization: headers['authorization'] !== undefined,
  cookie: headers['cookie'] !== undefined,
});

export const isAnonymous = ({ headers }: FetchRequest): boolean =>
  headers['cookie'] === undefined && headers['authorization'] === undefined;

export const directivesOf = ({ directives }: FetchRequest): Directives => new Map(directives);

export const isOnlyIfCached = ({ directives }: FetchRequest): boolean =>
  directives.some(([name]) => name === 'only-if-cached');

/** Whether the request sets limits of its own to the age of a response: then nothing from the negative cache will do. */
export const limitsAge = ({ directives }: FetchRequest): boolean =>
  directives.some(([name]) => name === 'no-cache' || name === 'max-age' || name === 'min-fresh');

/** Requests that share a verdict of the origin on whether its response may be stored: credentials may change that. */
export function bypassKey({ key, headers }: FetchRequest): string {
  const { authorization, cookie } = credentialsOf(headers);
  return `${primaryKeyOf(key)} ${authorization ? 'a' : ''}${cookie ? 'c' : ''}`;
}

/** Blocks of the first fetch: as far as the client wants, but not beyond one upstream fetch. */
export function requestedBlocks({ from, to }: FetchRequest): { readonly first: number; readonly last: number } {
  if (from === 'suffix') return { first: 0, last: 0 };
  const first = Math.floor(from / BLOCK_BYTES);
  const wanted = to === null ? Number.POSITIVE_INFINITY : Math.max(first, Math.floor((to - 1) / BLOCK_BYTES));
  return { first, last: Math.min(first + FETCH_BLOCKS_MAX - 1, wanted) };
}

/** RFC 9110 13.1: the entity tag, weak or strong, else the date; nothing when the entry has neither. */
export function conditionalHeaders({ headers }: Entry): Record<string, string> {
  if (headers['etag'] !== undefined) return { 'if-none-match': headers['etag'] };
  if (headers['last-modified'] !== undefined) return { 'if-modified-since': headers['last-modified'] };
  return {};
}

/** An error that says the same to everybody who waits for it. Redirects and all else are for one client. */
export function mayShare({
  status,
  headers,
  cookies,
  body,
}: Omit<OriginRelay, 'body'> & { readonly body: unknown }): boolean {
  const directives = parseDirectives(headers['cache-control']);
  return (
    Buffer.isBuffer(body) &&
    (status === 404 || status === 410 || status >= 500) &&
    cookies.length === 0 &&
    headers['vary'] === undefined &&
    !directives.has('private') &&
    !directives.has('no-store')
  );
}

/** The whole body, or all of it as a stream when it is longer. Throws when the body breaks off. */
export async function readUpTo(
  body: AsyncIterable<Buffer>,
  bytesMax: number,
): Promise<Buffer | AsyncGenerator<Buffer>> {
  const rest = body[Symbol.asyncIterator]();
  const chunks: Buffer[] = [];
  let bytes = 0;
  for (let step = await rest.next(); step.done !== true; step = await rest.next()) {
    chunks.push(step.value);
    bytes += step.value.length;
    if (bytes > bytesMax) return concatenated(chunks, rest);
  }
  return Buffer.concat(chunks);
}

async function* concatenated(chunks: readonly Buffer[], rest: AsyncIterator<Buffer>): AsyncGenerator<Buffer> {
  try {
    yield* chunks;
    for (let step = await rest.next(); step.done !== true; step = await rest.next()) yield step.value;
  } finally {
    await rest.return?.();
  }
}

/** Passes chunks on and keeps a copy. `onEnd` is called with the whole body at its end, unless it was longer than `bytesMax`. */
export async function* teeUpTo(
  body: AsyncIterable<Buffer>,
  bytesMax: number,
  onEnd: (whole: Buffer) => Promise<void>,
): AsyncGenerator<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes <= bytesMax) chunks.push(chunk);
    else chunks.length = 0;
    yield chunk;
  }
  if (bytes > 0 && bytes <= bytesMax) await onEnd(Buffer.concat(chunks));
}

/** The opaque part of an entity tag, by which weak comparison goes. */
export const opaqueTag = (etag: string): string => etag.replace(/^W\//, '');

export const setCookieOf = (headers: Readonly<Record<string, string>>): Record<string, string> =>
  headers['set-cookie'] === undefined ? {} : { 'set-cookie': headers['set-cookie'] };
