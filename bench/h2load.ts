// Load at a fixed rate by h2load from a core of its own, over HTTP/1.1: what a request takes when the server is not at its
// limit. Each request's time is kept, because a mean hides who waited.

import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { quantile } from './bench.ts';
import { CLIENT_CORE } from './ring.ts';

const run = promisify(execFile);
/** Connections that have just been opened are not what is asked about. */
const WARM_UP_S_MAX = 1;
/** Until h2load has connected, at most. */
const CONNECTING_MS = 100;
/**
 * A client that waits asks nothing meanwhile. Where more than this share of the requests were never made or never answered,
 * they count as having waited all the time: else a server that answers nobody would look fast.
 */
const MISSING_SHARE = 0.05;

export interface RatedLoad {
  readonly url: string;
  readonly directory: string;
  readonly paths: readonly string[];
  /** `Range` of every request; null for none. */
  readonly range: string | null;
  readonly seconds: number;
  readonly clients: number;
  /** Requests per second over all clients; 0 as many as there can be. */
  readonly rate: number;
}

export interface RatedResult {
  readonly requestsPerSecond: number;
  readonly medianMs: number;
  readonly p99Ms: number;
  /** Status of each answer that was none of the asset; −1 where none came. */
  readonly failures: readonly number[];
}

export async function h2load(load: RatedLoad): Promise<RatedResult> {
  const uris = join(load.directory, 'uris');
  const log = join(load.directory, 'h2load.log');
  writeFileSync(uris, load.paths.map((path) => `${load.url}${path}\n`).join(''));
  writeFileSync(log, '');
  const warmUpMs = Math.min(WARM_UP_S_MAX, load.seconds / 2) * 1_000;
  const args = [
    'h2load',
    '--h1',
    '-t1',
    `-c${load.clients}`,
    `-D${load.seconds * 1_000}ms`,
    `--warm-up-time=${warmUpMs}ms`,
  ];
  // h2load takes whole requests per second and client.
  const perClient = load.rate === 0 ? 0 : Math.max(1, Math.round(load.rate / load.clients));
  const pace = perClient === 0 ? [] : [`--rps=${perClient}`];
  const header = load.range === null ? [] : ['-H', `range: ${load.range}`];
  const files = [`--log-file=${log}`, '-i', uris];
  // h2load logs what ends after its warm-up, whenever it began; of an answer whose head came before it has forgotten the status.
  const measuredMicros = (Date.now() + warmUpMs + CONNECTING_MS) * 1_000;
  await run('taskset', ['-c', String(CLIENT_CORE), ...args, ...pace, ...header, ...files]);
  const rows = readFileSync(log, 'utf8')
    .split('\n')
    .filter((row) => row !== '')
    .map((row) => row.split('\t').map(Number) as [startMicros: number, status: number, micros: number])
    .filter(([startMicros]) => startMicros >= measuredMicros);
  const answered = rows.filter(([, status]) => status === 200 || status === 206);
  const times = answered.map(([, , micros]) => micros / 1_000);
  const expected = perClient * load.clients * (load.seconds - CONNECTING_MS / 1_000);
  const missing = expected - rows.length;
  if (missing > expected * MISSING_SHARE) for (let at = 0; at < missing; at += 1) times.push(load.seconds * 1_000);
  return {
    requestsPerSecond: answered.length / (load.seconds - CONNECTING_MS / 1_000),
    medianMs: quantile(times, 0.5),
    p99Ms: quantile(times, 0.99),
    failures: rows.map(([, status]) => status).filter((status) => status !== 200 && status !== 206),
  };
}
