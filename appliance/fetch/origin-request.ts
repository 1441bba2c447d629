// What an ask wants of the origin, and with whom its answer may be shared. Pure, but for reading a body.

import { BLOCK_BYTES } from '../store/block-file.ts';
import { parseDirectives } from '../http/cache-control.ts';
import type { RequestCredentials } from '../http/freshness.ts';
import { FETCH_BLOCKS_MAX } from './inflight.ts';
import type { FetchRequest } from '../link/messages.ts';
import type { OriginRelay } from './origin.ts';
import type { Entry } from '../store/volume.ts';
import { primaryKeyOf } from '../http/vary.ts';

/** Reasons not to store that lie in who asks: for another the answer may be another. */
export const REQUEST_DEPENDENT: ReadonlySet<string> = new Set(['authorization', 'cookie']);

export const credentialsOf = (headers: Readonly<Record<string, string>>): RequestCredentials => ({
  authorization: headers['authorization'] !== undefined,
  cookie: headers['cookie'] !== undefined,
});

export const isAnonymous = ({ headers }: FetchRequest): boolean =>
  headers['cookie'] === undefined && headers['authorization'] === undefined;

/** Who has credentials may be answered otherwise than who has none. */
export function bypassKey({ key, headers }: FetchRequest): string {
  const { authorization, cookie } = credentialsOf(headers);
  return `${primaryKeyOf(key)} ${authorization ? 'a' : ''}${cookie ? 'c' : ''}`;
}

/** Blocks of the first fetch: as far as the asker wants, no further than a flight goes. */
export function requestedBlocks({ from, to }: FetchRequest): { readonly first: number; readonly last: number } {
  if (from === 'suffix') return { first: 0, last: 0 };
  const first = Math.floor(from / BLOCK_BYTES);
  const wanted = to === null ? Number.POSITIVE_INFINITY : Math.max(first, Math.floor((to - 1) / BLOCK_BYTES));
  return { first, last: Math.min(first + FETCH_BLOCKS_MAX - 1, wanted) };
}

/** RFC 9110 13.1: the entity tag, weak or strong, else the date; nothing where there is neither. */
export function conditionalHeaders({ headers }: Entry): Record<string, string> {
  if (headers['etag'] !== undefined) return { 'if-none-match': headers['etag'] };
  if (headers['last-modified'] !== undefined) return { 'if-modified-since': headers['last-modified'] };
  return {};
}

/** An error that says the same to everybody who waits for it; redirects and all else are one asker's. */
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

/** The whole body, or, where it is longer, all of it as a stream. Throws where it breaks off. */
export async function readUpTo(body: AsyncIterable<Buffer>, most: number): Promise<Buffer | AsyncGenerator<Buffer>> {
  const rest = body[Symbol.asyncIterator]();
  const chunks: Buffer[] = [];
  let bytes = 0;
  for (let step = await rest.next(); step.done !== true; step = await rest.next()) {
    chunks.push(step.value);
    bytes += step.value.length;
    if (bytes > most) return rejoined(chunks, rest);
  }
  return Buffer.concat(chunks);
}

async function* rejoined(chunks: readonly Buffer[], rest: AsyncIterator<Buffer>): AsyncGenerator<Buffer> {
  try {
    yield* chunks;
    for (let step = await rest.next(); step.done !== true; step = await rest.next()) yield step.value;
  } finally {
    await rest.return?.();
  }
}

/** Passes chunks on; when all have come and were not too many, they are kept. */
export async function* teeUpTo(
  body: AsyncIterable<Buffer>,
  most: number,
  keep: (whole: Buffer) => Promise<void>,
): AsyncGenerator<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes <= most) chunks.push(chunk);
    else chunks.length = 0;
    yield chunk;
  }
  if (bytes > 0 && bytes <= most) await keep(Buffer.concat(chunks));
}

export const weakTag = (etag: string): string => etag.replace(/^W\//, '');

export const setCookieOf = (headers: Readonly<Record<string, string>>): Record<string, string> =>
  headers['set-cookie'] === undefined ? {} : { 'set-cookie': headers['set-cookie'] };
