// The demo's player against pathways that lie, break off, refuse and hang: its verdict is what every check rests on.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { PATIENCE_MS, play, type PlayReport } from '../player.ts';

type Manner = 'honest' | 'lies' | 'breaks off' | 'refuses' | 'hangs' | 'sends less';

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

/** From segment 2 on it behaves in its manner. */
const edge = (manner: Manner): Promise<string> =>
  listen((path, response) => {
    const name = path.slice('/~s/film/'.length);
    const at = Number.parseInt(name, 10);
    const body = bodyOf(at);
    if (name === 'v.m3u8') response.end(MEDIA);
    else if (at < 2 || manner === 'honest') response.end(body);
    else if (manner === 'lies') response.end(Buffer.concat([body.subarray(1), Buffer.from([0])]));
    else if (manner === 'sends less') response.end(body.subarray(1));
    else if (manner === 'refuses') response.writeHead(503).end();
    else if (manner === 'breaks off') {
      response.writeHead(200, { 'content-length': body.length });
      response.write(body.subarray(0, 5_000), () => response.destroy());
    }
  });

async function playOver(...manners: Manner[]): Promise<PlayReport> {
  const bases = await Promise.all(manners.map(edge));
  const names = manners.map((_, at) => `edge-${at}`);
  const variants = names.map(
    (name, at) => `#EXT-X-STREAM-INF:BANDWIDTH=1,PATHWAY-ID="${name}"\n${bases[at]}/~s/film/v.m3u8`,
  );
  const master = ['#EXTM3U', '#EXT-X-CONTENT-STEERING:SERVER-URI="/steer",PATHWAY-ID="edge-0"', ...variants].join('\n');
  const list = JSON.stringify({ VERSION: 1, TTL: 30, 'PATHWAY-PRIORITY': names });
  const steering = await listen((path, response) => void response.end(path === '/steer' ? list : master));
  return play({ steering, title: 'film', root, from: '127.0.0.1', quality: 'highest' });
}

test('an honest pathway is played whole without a fail-over', async () => {
  const report = await playOver('honest', 'honest');
  expect(report).toMatchObject({ segments: SEGMENTS, wrong: [], failovers: [], steeringLost: 0 });
  expect(report.bytesByPathway).toEqual({ 'edge-0': MEDIA.length + SEGMENTS * 10_000 });
});

test.each(['refuses', 'breaks off', 'hangs'] as const)(
  'a pathway that %s is left for the next, and no byte is missing',
  async (manner) => {
    const report = await playOver(manner, 'honest');
    expect(report).toMatchObject({ segments: SEGMENTS, wrong: [] });
    expect(report.failovers).toHaveLength(1);
    expect(report.failovers[0]).toMatchObject({ segment: 2, from: 'edge-0', to: 'edge-1' });
    if (manner === 'hangs') expect(report.failovers[0]!.lostMs).toBeGreaterThan(PATIENCE_MS - 100);
    expect(report.failovers[0]!.lostMs).toBeLessThan(PATIENCE_MS + 1_500);
  },
);

test.each(['lies', 'sends less'] as const)('a pathway that %s is found out', async (manner) => {
  const report = await playOver(manner, 'honest');
  expect(report.wrong).toHaveLength(2);
  expect(report.wrong[0]).toContain('2.m4s from edge-0');
});

test('where every pathway fails, that is said', async () => {
  const report = await playOver('refuses', 'breaks off');
  expect(report.failovers.map((failover) => failover.to)).toEqual(['edge-1', null]);
  expect(report.wrong).toHaveLength(2);
});
