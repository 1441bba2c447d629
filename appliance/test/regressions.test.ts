// Each of these broke once; the name says what. One case per defect, at the lowest level that shows it.

import { readFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { noise, raw, RunningAppliance, ScriptedOrigin } from './rig.ts';

const MB = 2 ** 20;
let appliance: RunningAppliance | null = null;
let origin: ScriptedOrigin | null = null;

afterEach(async () => {
  await appliance?.stop();
  await origin?.stop();
  appliance = null;
  origin = null;
});

async function start(flags: readonly string[] = []): Promise<{ appliance: RunningAppliance; origin: ScriptedOrigin }> {
  origin = await ScriptedOrigin.start();
  appliance = await RunningAppliance.start({ origin: origin.url, flags });
  return { appliance, origin };
}

const residentBytes = (pid: number): number =>
  Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024;

test('pipelined requests of one connection each held a buffer, also after it had hung up', async () => {
  const running = await start(['--workers', '1']);
  running.origin.put('/film', noise(2 * MB));
  running.origin.put('/last', Buffer.from('the end'));
  await (await fetch(`${running.appliance.url}/film`)).arrayBuffer();
  const worker = (await running.appliance.pids()).workers[0]!;
  const before = residentBytes(worker);
  const ask = 'GET /film HTTP/1.1\r\nHost: a\r\n\r\n';
  const sockets = Array.from({ length: 12 }, () => {
    const socket = createConnection(running.appliance.port, '127.0.0.1').pause();
    socket.on('error', () => undefined).write(ask.repeat(60));
    return socket;
  });
  // A later request is answered only when the worker has read all of those.
  const answer = await raw(
    running.appliance.port,
    'GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n',
    20_000,
  );
  expect(String(answer)).toContain('the end');
  // 12 connections of 60 requests: 360 MB where each held 512 KiB.
  expect(residentBytes(worker) - before).toBeLessThan(100 * MB);
  for (const socket of sockets) socket.destroy();

  const order = String(
    await raw(
      running.appliance.port,
      `${ask}GET /nothing HTTP/1.1\r\nHost: a\r\n\r\nGET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`,
    ),
  );
  expect([...order.matchAll(/HTTP\/1\.1 (\d{3})/g)].map((match) => match[1])).toEqual(['200', '404', '200']);
});
