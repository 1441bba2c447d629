// Memory of the processes while clients or the origin do their worst, measured as resident bytes.

import { createConnection } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { HttpConnection, sendRequest } from './http-client.ts';
import { residentBytes } from './processes.ts';
import { noise, RunningAppliance, ScriptedOrigin } from './rig.ts';

const MB = 2 ** 20;
let appliance: RunningAppliance;
let origin: ScriptedOrigin;

async function start(flags: readonly string[]): Promise<void> {
  origin = await ScriptedOrigin.start();
  appliance = await RunningAppliance.start({ origin: origin.url, flags });
}

afterEach(async () => {
  await appliance.stop();
  await origin.stop();
});

test('of 60 pipelined requests on one connection only the one that is answered holds a buffer', async () => {
  await start(['--workers', '1']);
  origin.put('/film', noise(2 * MB));
  origin.put('/last', Buffer.from('the end'));
  await sendRequest(appliance.port, { path: '/film' });
  const worker = (await appliance.pids()).workers[0]!;
  const before = residentBytes([worker]);
  const film = 'GET /film HTTP/1.1\r\nHost: a\r\n\r\n';
  const sockets = Array.from({ length: 12 }, () => {
    const socket = createConnection(appliance.port, '127.0.0.1').pause();
    socket.on('error', () => undefined).write(film.repeat(60));
    return socket;
  });
  // A request sent after them is answered only when the worker has read all of those.
  expect((await sendRequest(appliance.port, { path: '/last' })).body.toString()).toBe('the end');
  // 12 connections of 60 requests: 360 MB if each held 512 KiB.
  expect(residentBytes([worker]) - before).toBeLessThan(100 * MB);
  for (const socket of sockets) socket.destroy();

  const connection = await HttpConnection.open(appliance.port);
  connection.send(
    `${film}GET /nothing HTTP/1.1\r\nHost: a\r\n\r\nGET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`,
  );
  const statuses: (number | undefined)[] = [];
  for (let count = 0; count < 3; count += 1) statuses.push((await connection.readResponse())?.status);
  expect(statuses).toEqual([200, 404, 200]);
  connection.destroy();
});

test(
  'an origin that ignores ranges does not make the storekeeper hold a whole film in memory',
  { timeout: 120_000 },
  async () => {
    await start(['--store-bytes', '64MiB']);
    const bytes = 320 * MB;
    const piece = noise(MB);
    let sent = 0;
    origin.intercept = (_request, response) => {
      response.writeHead(200, { etag: '"film"', 'content-length': bytes });
      const more = (): void => {
        while (sent < bytes) {
          sent += MB;
          if (!response.write(piece)) return void response.once('drain', more);
        }
        response.end();
      };
      more();
      return true;
    };
    const { storekeeper } = await appliance.pids();
    const before = residentBytes([storekeeper]);
    const answer = await sendRequest(appliance.port, { path: '/film', lines: ['Range: bytes=0-9'] });
    expect(answer.body.equals(piece.subarray(0, 10))).toBe(true);
    let peak = 0;
    await appliance.until(() => {
      peak = Math.max(peak, residentBytes([storekeeper]) - before);
      return sent >= bytes;
    }, 90_000);
    expect(peak).toBeLessThan(160 * MB);
  },
);
