// Child processes that hang, or cannot be started: the others go on, and the child comes back.

import { renameSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { HttpConnection, requestText, sendRequest } from './http-client.ts';
import { metricValue } from './metrics.ts';
import { noise, RunningAppliance, ScriptedOrigin } from './rig.ts';

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
