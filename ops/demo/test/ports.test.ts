// Two demos on one machine, and a foreign service on a demo's port: neither passes for the demo's own.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { ensureFleetKey, issueToken } from '../../../runtime/auth.ts';
import { packageRoot } from '../../../runtime/paths.ts';
import { serviceCommands } from '../layout.ts';
import { reservePorts } from '../ports.ts';
import { ReaperClient } from '../reaper-client.ts';
import { ServiceProcess } from '../service-process.ts';
import { startStub } from '../../test/stub.ts';

test('a port that a demo has reserved is taken before anything listens on it, and free once that demo ends', async () => {
  const first = await reservePorts({ port: null, ports: 'usual' });
  const { steering } = first.ports;
  const second = await reservePorts({ port: null, ports: 'usual' });
  expect(second.ports.steering).not.toBe(steering);
  await expect(reservePorts({ port: steering, ports: 'any' })).rejects.toMatchObject({
    code: 'config_invalid',
    message: expect.stringContaining(`--port ${steering} is taken`),
  });
  first.release();
  const third = await reservePorts({ port: steering, ports: 'any' });
  expect(third.ports.steering).toBe(steering);
  second.release();
  third.release();
});

test('a service is not ready if a foreign service responds on its port', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'larder-ports-'));
  const foreign = await startStub(Buffer.alloc(32));
  const port = Number(new URL(foreign.url).port);
  const fleetKey = ensureFleetKey(join(directory, 'fleet.key'));
  const unused = { video: 1, admin: 1 };
  const appliances = { 'north-1': unused, 'north-2': unused, 'south-1': unused };
  const ports = { origin: 1, fill: port, steering: 1, appliances };
  const command = serviceCommands({ directory, media: directory, ports, fillRate: null })['fill']!;
  const reaper = new ReaperClient();
  const fill = new ServiceProcess(
    { ...command, logFile: join(directory, 'fill.log'), env: { PATH: process.env['PATH']! } },
    {
      larder: join(packageRoot, 'dist', 'larder.js'),
      reaper,
      token: issueToken(fleetKey, { role: 'operator', id: 'operator' }),
    },
  );
  try {
    await expect(fill.start()).rejects.toThrow(
      /fill ended with 2 instead of starting[^]*cannot listen at 127\.0\.0\.1/,
    );
  } finally {
    await fill.stop();
    reaper.close();
    await foreign.close();
    rmSync(directory, { recursive: true });
  }
});
