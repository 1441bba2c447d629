// Two appliances before one origin: stand-alone and reverse proxy. Each `Resource` of the origin follows a script of its own.

import type { IncomingMessage, ServerResponse } from 'node:http';
import { afterAll, beforeAll, expect } from 'vitest';
import { RunningAppliance, ScriptedOrigin } from './rig.ts';
import { field, sendRequest, type HttpResponse } from './http-client.ts';
import { until } from './waiting.ts';

/** `ordinal` counts the requests for the resource, from 1. */
export type Handler = (request: IncomingMessage, response: ServerResponse, ordinal: number) => void;

export let origin: ScriptedOrigin;
export let standalone: RunningAppliance;
export let reverseProxy: RunningAppliance;
const scripts = new Map<string, { handler: Handler; readonly requests: IncomingMessage[] }>();
let paths = 0;

/** Starts origin and appliances before the tests of a file, one worker each, and stops them afterwards. */
export function startAppliances(): void {
  beforeAll(async () => {
    origin = await ScriptedOrigin.start();
    origin.intercept = (request, response) => {
      const script = scripts.get(request.url!);
      if (script === undefined) return false;
      script.requests.push(request);
      script.handler(request, response, script.requests.length);
      return true;
    };
    [standalone, reverseProxy] = await Promise.all([
      RunningAppliance.start({ origin: origin.url, flags: ['--workers', '1'] }),
      RunningAppliance.start({ origin: origin.url, flags: ['--workers', '1', '--reverse-proxy'] }),
    ]);
  });
  afterAll(async () => {
    await Promise.all([standalone?.stop(), reverseProxy?.stop()]);
    await origin?.stop();
  });
}

export interface ResponseSpec {
  readonly headers?: Record<string, string | string[] | undefined>;
  readonly body?: string | Buffer;
  readonly status?: number;
}

/** Responds as a well-behaved origin: conditions and ranges as RFC 9110 defines them. */
export function respond(request: IncomingMessage, response: ServerResponse, spec: ResponseSpec): void {
  const body = Buffer.from(spec.body ?? 'the one and only body');
  const fields: Record<string, string | string[] | undefined> = { 'content-type': 'text/plain', ...spec.headers };
  const etag = fields['etag'];
  const unchanged =
    etag === undefined
      ? fields['last-modified'] !== undefined && request.headers['if-modified-since'] === fields['last-modified']
      : request.headers['if-none-match'] === etag;
  const present = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
  if (unchanged && spec.status === undefined) {
    response.writeHead(304, present as Record<string, string>).end();
    return;
  }
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
  const first = Number(range?.[1] ?? 0);
  const last = Math.min(range?.[2] ? Number(range[2]) : Infinity, body.length - 1);
  const part = range !== null && spec.status === undefined ? body.subarray(first, last + 1) : body;
  response.writeHead(spec.status ?? (range === null ? 200 : 206), {
    ...(present as Record<string, string>),
    ...(range !== null && spec.status === undefined
      ? { 'content-range': `bytes ${first}-${last}/${body.length}` }
      : {}),
    'content-length': String(part.length),
  });
  response.end(request.method === 'HEAD' ? undefined : part);
}

/** Number of blocks on disk of a resource, all its variants together. */
export async function storedBlocks({ admin, token }: RunningAppliance, path: string): Promise<number> {
  const url = `${admin}/v1/assets?prefix=${encodeURIComponent(path)}`;
  const { assets } = (await (await fetch(url, { headers: { authorization: `Bearer ${token}` } })).json()) as {
    readonly assets: readonly { readonly key: string; readonly blocks: number }[];
  };
  // The path of another resource may begin with this one.
  const own = assets.filter(({ key }) => key === path || key.startsWith(`${path} `));
  return own.reduce((sum, { blocks }) => sum + blocks, 0);
}

/**
 * Resolves when the appliance has done all that it can do for the requests sent to it so far: another resource, asked for
 * after them, has been fetched from the origin and is on disk. The requests pass through the same worker, storekeeper and
 * index writer, in order. Tests use this before they assert that something did not happen.
 */
export async function settled(appliance: RunningAppliance): Promise<void> {
  await new Resource({ headers: FRESH }, () => appliance).fetchAndStore();
}

/** One path at the origin, with its script, its recorded requests, and a client that asks an appliance for it. */
export class Resource {
  readonly path: string;
  readonly #appliance: () => RunningAppliance;

  constructor(handler: Handler | ResponseSpec, appliance = (): RunningAppliance => standalone, query = '') {
    paths += 1;
    this.path = `/resource-${paths}${query}`;
    this.#appliance = appliance;
    this.respondWith(handler);
  }

  /** Replaces the script. */
  respondWith(handler: Handler | ResponseSpec): void {
    const script: Handler =
      typeof handler === 'function' ? handler : (request, response) => respond(request, response, handler);
    scripts.set(this.path, { handler: script, requests: scripts.get(this.path)?.requests ?? [] });
  }

  /** Requests that have reached the origin. */
  get requests(): IncomingMessage[] {
    return scripts.get(this.path)!.requests;
  }

  get(lines: readonly string[] = [], method = 'GET'): Promise<HttpResponse> {
    return sendRequest(this.#appliance().port, { path: this.path, lines: [...lines], method });
  }

  /** Asks for the resource once and waits until it is on disk. */
  async fetchAndStore(lines: readonly string[] = []): Promise<this> {
    const before = await storedBlocks(this.#appliance(), this.path);
    const first = await this.get(lines);
    expect([first.status, field(first, 'cache-status')]).toEqual([200, expect.stringMatching(/stored/)]);
    await this.untilStored(before + 1);
    return this;
  }

  async untilStored(blocks = 1): Promise<void> {
    await until(async () => (await storedBlocks(this.#appliance(), this.path)) >= blocks);
  }
}

export const V1 = { etag: '"v1"' };

/** Fields of version 1, fresh for ten minutes. */
export const FRESH = { ...V1, 'cache-control': 'max-age=600' };

/** Fields of version 1 with these directives, generated `ageS` seconds ago. */
export const aged = (directives: string, ageS: number): Record<string, string> => ({
  ...V1,
  'cache-control': directives,
  age: String(ageS),
});

export const cacheStatus = (response: HttpResponse): string => field(response, 'cache-status') ?? '';
