// The demo player with pathways that send wrong bytes, break off, refuse and hang. Every check of the demo relies on its report.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { RESPONSE_TIMEOUT_MS, play, type PlayReport } from '../player.ts';

type Behaviour = 'correct' | 'sends wrong bytes' | 'breaks off' | 'refuses' | 'hangs' | 'sends too few bytes';

const SEGMENTS = 4;
const bodyOf = (at: number): Buffer => Buffer.alloc(10_000, at + 1);
const MEDIA = [
  '#EXTM3U',
  ...Array.from({ length: SEGMENTS }, (_, at) => `#EXTINF:2,\n${at}.m4s`),
  '#EXT-X-ENDLIST',
].join('\n');

let root: string;
let servers: Server[];

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'larder-player-'));
  mkdirSync(join(root, 'film'));
  writeFileSync(join(root, 'film', 'v.m3u8'), MEDIA);
  for (let at = 0; at < SEGMENTS; at += 1) writeFileSync(join(root, 'film', `${at}.m4s`), bodyOf(at));
  servers = [];
});

afterEach(() => {
  for (const server of servers) server.close().closeAllConnections();
  rmSync(root, { recursive: true });
});

async function listen(answer: (path: string, response: ServerResponse) => void): Promise<string> {
  const server = createServer((request, response) => answer(request.url!.split('?')[0]!, response));
  servers.push(server);
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** A pathway that is correct up to segment 1 and shows its behaviour from segment 2 on. */
const startPathway = (behaviour: Behaviour): Promise<string> =>
  listen((path, response) => {
    const name = path.slice('/~s/film/'.length);
    const at = Number.parseInt(name, 10);
    const body = bodyOf(at);
    if (name === 'v.m3u8') response.end(MEDIA);
    else if (at < 2 || behaviour === 'correct') response.end(body);
    else if (behaviour === 'sends wrong bytes') response.end(Buffer.concat([body.subarray(1), Buffer.from([0])]));
    else if (behaviour === 'sends too few bytes') response.end(body.subarray(1));
    else if (behaviour === 'refuses') response.writeHead(503).end();
    else if (behaviour === 'breaks off') {
      response.writeHead(200, { 'content-length': body.length });
      response.write(body.subarray(0, 5_000), () => response.destroy());
    }
  });

async function playOver(...behaviours: Behaviour[]): Promise<PlayReport> {
  const bases = await Promise.all(behaviours.map(startPathway));
  const names = behaviours.map((_, at) => `edge-${at}`);
  const variants = names.map(
    (name, at) => `#EXT-X-STREAM-INF:BANDWIDTH=1,PATHWAY-ID="${name}"\n${bases[at]}/~s/film/v.m3u8`,
  );
  const master = ['#EXTM3U', '#EXT-X-CONTENT-STEERING:SERVER-URI="/steer",PATHWAY-ID="edge-0"', ...variants].join('\n');
  const list = JSON.stringify({ VERSION: 1, TTL: 30, 'PATHWAY-PRIORITY': names });
  const steering = await listen((path, response) => void response.end(path === '/steer' ? list : master));
  return play({ steering, title: 'film', root, localAddress: '127.0.0.1', quality: 'highest' });
}

test('a correct pathway is played to the end without a fail-over', async () => {
  const report = await playOver('correct', 'correct');
  expect(report).toMatchObject({ segments: SEGMENTS, mismatches: [], failovers: [], steeringFailures: 0 });
  expect(report.bytesByPathway).toEqual({ 'edge-0': MEDIA.length + SEGMENTS * 10_000 });
});

test.each(['refuses', 'breaks off', 'hangs'] as const)(
  'the player fails over from a pathway that %s, and no byte is missing',
  async (behaviour) => {
    const report = await playOver(behaviour, 'correct');
    expect(report).toMatchObject({ segments: SEGMENTS, mismatches: [] });
    expect(report.failovers).toHaveLength(1);
    expect(report.failovers[0]).toMatchObject({ segment: 2, from: 'edge-0', to: 'edge-1' });
    if (behaviour === 'hangs') expect(report.failovers[0]!.waitedMs).toBeGreaterThan(RESPONSE_TIMEOUT_MS - 100);
    expect(report.failovers[0]!.waitedMs).toBeLessThan(RESPONSE_TIMEOUT_MS + 1_500);
  },
);

test.each(['sends wrong bytes', 'sends too few bytes'] as const)('a pathway that %s is reported', async (behaviour) => {
  const report = await playOver(behaviour, 'correct');
  expect(report.mismatches).toHaveLength(2);
  expect(report.mismatches[0]).toContain('2.m4s from edge-0');
});

test('the report lists every segment that no pathway delivered', async () => {
  const report = await playOver('refuses', 'breaks off');
  expect(report.failovers.map((failover) => failover.to)).toEqual(['edge-1', null]);
  expect(report.mismatches).toHaveLength(2);
});
