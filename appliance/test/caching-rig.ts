// An origin that follows a script, one resource at a time, and appliances before it: a plain one and a reverse proxy.

import type { IncomingMessage, ServerResponse } from 'node:http';
import { afterAll, beforeAll, expect, vi } from 'vitest';
import { RunningAppliance, ScriptedOrigin } from './rig.ts';
import { ask, field, type Answer } from './wire.ts';

export type Handler = (request: IncomingMessage, response: ServerResponse, turn: number) => void;

export let origin: ScriptedOrigin;
export let alone: RunningAppliance;
export let proxy: RunningAppliance;
const scripts = new Map<string, { handler: Handler; readonly requests: IncomingMessage[] }>();
let paths = 0;

/** For the tests of a file. */
export function standUp(): void {
  beforeAll(async () => {
    origin = await ScriptedOrigin.start();
    origin.intercept = (request, response) => {
      const script = scripts.get(request.url!);
      if (script === undefined) return false;
      script.requests.push(request);
      script.handler(request, response, script.requests.length);
      return true;
    };
    [alone, proxy] = await Promise.all([
      RunningAppliance.start({ origin: origin.url, flags: ['--workers', '1'] }),
      RunningAppliance.start({ origin: origin.url, flags: ['--workers', '1', '--reverse-proxy'] }),
    ]);
  });
  afterAll(async () => {
    await Promise.all([alone?.stop(), proxy?.stop()]);
    await origin?.stop();
  });
}

export interface Say {
  readonly headers?: Record<string, string | string[] | undefined>;
  readonly body?: string | Buffer;
  readonly status?: number;
}

/** A well-behaved origin for one resource: conditions and ranges as RFC 9110 has them. */
export function say(request: IncomingMessage, response: ServerResponse, spec: Say): void {
  const body = Buffer.from(spec.body ?? 'the one and only body');
  const fields: Record<string, string | string[] | undefined> = { 'content-type': 'text/plain', ...spec.headers };
  const etag = fields['etag'];
  const unchanged =
    etag === undefined
      ? fields['last-modified'] !== undefined && request.headers['if-modified-since'] === fields['last-modified']
      : request.headers['if-none-match'] === etag;
  const kept = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
  if (unchanged && spec.status === undefined) {
    response.writeHead(304, kept as Record<string, string>).end();
    return;
  }
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
  const first = Number(range?.[1] ?? 0);
  const last = Math.min(range?.[2] ? Number(range[2]) : Infinity, body.length - 1);
  const part = range !== null && spec.status === undefined ? body.subarray(first, last + 1) : body;
  response.writeHead(spec.status ?? (range === null ? 200 : 206), {
    ...(kept as Record<string, string>),
    ...(range !== null && spec.status === undefined
      ? { 'content-range': `bytes ${first}-${last}/${body.length}` }
      : {}),
    'content-length': String(part.length),
  });
  response.end(request.method === 'HEAD' ? undefined : part);
}

/** Blocks on disk of a resource, of all its variants. */
export async function blocksStored({ admin, token }: RunningAppliance, path: string): Promise<number> {
  const url = `${admin}/v1/assets?prefix=${encodeURIComponent(path)}`;
  const { assets } = (await (await fetch(url, { headers: { authorization: `Bearer ${token}` } })).json()) as {
    readonly assets: readonly { readonly key: string; readonly blocks: number }[];
  };
  // Another resource may begin as this one does.
  const own = assets.filter(({ key }) => key === path || key.startsWith(`${path} `));
  return own.reduce((sum, { blocks }) => sum + blocks, 0);
}

export class Resource {
  readonly path: string;
  readonly #appliance: () => RunningAppliance;

  constructor(handler: Handler | Say, appliance = (): RunningAppliance => alone, query = '') {
    paths += 1;
    this.path = `/resource-${paths}${query}`;
    this.#appliance = appliance;
    this.now(handler);
  }

  /** What the origin does from here on. */
  now(handler: Handler | Say): void {
    const script: Handler =
      typeof handler === 'function' ? handler : (request, response) => say(request, response, handler);
    scripts.set(this.path, { handler: script, requests: scripts.get(this.path)?.requests ?? [] });
  }

  get asked(): IncomingMessage[] {
    return scripts.get(this.path)!.requests;
  }

  get(lines: readonly string[] = [], method = 'GET'): Promise<Answer> {
    return ask(this.#appliance().port, { path: this.path, lines: [...lines], method });
  }

  /** Fetched once and on disk: the next look is at what is stored. */
  async stored(lines: readonly string[] = []): Promise<this> {
    const before = await blocksStored(this.#appliance(), this.path);
    const first = await this.get(lines);
    expect([first.status, field(first, 'cache-status')]).toEqual([200, expect.stringMatching(/stored/)]);
    await vi.waitUntil(async () => (await blocksStored(this.#appliance(), this.path)) > before, {
      timeout: 10_000,
      interval: 5,
    });
    return this;
  }
}

export const V1 = { etag: '"v1"' };
export const stale = (directives: string, ageS: number): Record<string, string> => ({
  ...V1,
  'cache-control': directives,
  age: String(ageS),
});
export const status = (answer: Answer): string => field(answer, 'cache-status') ?? '';
