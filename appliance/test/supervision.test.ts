// Child processes that hang, or cannot be started: the others go on, and the child comes back.

import { once } from 'node:events';
import { existsSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { HttpConnection, requestText, sendRequest } from './http-client.ts';
import { metricValue } from './metrics.ts';
import { noise, RunningAppliance, ScriptedOrigin } from './rig.ts';
import { until } from './waiting.ts';

const FILM = noise(2 ** 20);
let appliance: RunningAppliance;
let origin: ScriptedOrigin;

beforeEach(async () => {
  origin = await ScriptedOrigin.start();
  appliance = await RunningAppliance.start({ origin: origin.url });
  origin.put('/film', FILM);
});

afterEach(async () => {
  await appliance.stop();
  await origin.stop();
});

test(
  'a worker that hangs holds up neither a purge nor the connections of the other worker, and is replaced',
  { timeout: 90_000 },
  async () => {
    await sendRequest(appliance.port, { path: '/film' });
    const [hung] = (await appliance.pids()).workers;
    process.kill(hung!, 'SIGSTOP');
    const connections: HttpConnection[] = [];
    try {
      const purge = await fetch(`${appliance.admin}/v1/purge`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${appliance.token}` },
        body: JSON.stringify({ key: '/film' }),
        signal: AbortSignal.timeout(40_000),
      });
      expect(purge.status).toBe(200);
      // A connection that the hung worker does not accept keeps it from being handed another one.
      let answered = 0;
      for (let count = 1; count <= 8; count += 1) {
        const connection = await HttpConnection.open(appliance.port);
        connections.push(connection);
        connection.send(requestText({ path: '/film' }));
        void connection.readResponse().then(
          (answer) => (answered += answer?.body.equals(FILM) === true ? 1 : 0),
          () => undefined,
        );
        await appliance.until(() => answered >= count - 1);
      }
    } finally {
      for (const connection of connections) connection.destroy();
    }
    await appliance.until(async () => (await metricValue(appliance, 'larder_workers')) === 2);
    expect((await appliance.pids()).workers).not.toContain(hung);
  },
);

test('a connection in the hands of a worker that hangs is closed, and one that it has not taken is answered by another', async () => {
  const { workers } = await appliance.pids();
  // As many as to have one in the hands of each worker.
  const taken = await Promise.all(Array.from({ length: 6 }, () => HttpConnection.open(appliance.port)));
  for (const connection of taken) {
    connection.send(requestText({ path: '/film' }));
    expect((await connection.readResponse())?.body.equals(FILM)).toBe(true);
  }
  for (const worker of workers) process.kill(worker, 'SIGSTOP');
  const waiting = await Promise.all(Array.from({ length: 6 }, () => HttpConnection.open(appliance.port)));
  for (const connection of waiting) connection.send(requestText({ path: '/film' }));
  await Promise.all(taken.map((connection) => connection.closed()));
  for (const connection of waiting) {
    expect((await connection.readResponse())?.body.equals(FILM)).toBe(true);
    connection.destroy();
  }
  expect(appliance.log.match(/child hangs and is killed/g)).toHaveLength(2);
});

test('a storekeeper that hangs is replaced, so that misses come back', async () => {
  const { storekeeper } = await appliance.pids();
  process.kill(storekeeper, 'SIGSTOP');
  await appliance.until(() => !existsSync(`/proc/${storekeeper}`));
  origin.put('/other', FILM);
  await appliance.until(async () => (await sendRequest(appliance.port, { path: '/other' })).body.equals(FILM));
  await appliance.until(async () => (await fetch(`${appliance.admin}/readyz`).catch(() => null))?.status === 200);
});

test('stopped children die with their supervisor, and the next one starts', async () => {
  const { supervisor, storekeeper, workers } = await appliance.pids();
  const exited = once(appliance.process, 'exit');
  for (const child of [storekeeper, ...workers]) process.kill(child, 'SIGSTOP');
  process.kill(supervisor, 'SIGKILL');
  await exited;
  await until(() => [storekeeper, ...workers].every((child) => !existsSync(`/proc/${child}`)));
  await appliance.start();
  expect((await sendRequest(appliance.port, { path: '/film' })).body.equals(FILM)).toBe(true);
});

test('a child that cannot be forked is tried again, and the supervisor survives', { timeout: 60_000 }, async () => {
  const { supervisor, workers } = await appliance.pids();
  const state = join(appliance.directory, 'state');
  renameSync(state, `${state}-away`);
  process.kill(workers[0]!, 'SIGKILL');
  await appliance.until(() => /cannot be started/.test(appliance.log));
  expect((await sendRequest(appliance.port, { path: '/film' })).status).toBe(200);
  renameSync(`${state}-away`, state);
  await appliance.until(async () => (await appliance.pids()).workers.length === 2);
  expect((await appliance.pids()).supervisor).toBe(supervisor);
});
