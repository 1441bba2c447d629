// Two demos on one machine, and a stranger at a demo's port: neither is mistaken for the demo's own.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { ensureFleetKey, issueToken } from '../../../runtime/auth.ts';
import { packageRoot } from '../../../runtime/paths.ts';
import { processPlans } from '../layout.ts';
import { choosePorts } from '../ports.ts';
import { DemoProcess, Warden } from '../service-process.ts';
import { startStub } from '../../test/stub.ts';

test('a port that another demo has chosen is taken before anything listens there, and free when that demo ends', async () => {
  const first = await choosePorts({ port: null, ports: 'usual' });
  const { steering } = first.ports;
  const second = await choosePorts({ port: null, ports: 'usual' });
  expect(second.ports.steering).not.toBe(steering);
  await expect(choosePorts({ port: steering, ports: 'any' })).rejects.toMatchObject({
    code: 'config_invalid',
    message: expect.stringContaining(`--port ${steering} is taken`),
  });
  first.release();
  const third = await choosePorts({ port: steering, ports: 'any' });
  expect(third.ports.steering).toBe(steering);
  second.release();
  third.release();
});

test('a service whose port a stranger has is not ready because the stranger answers', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'larder-ports-'));
  const stranger = await startStub(Buffer.alloc(32));
  const port = Number(new URL(stranger.url).port);
  const fleetKey = ensureFleetKey(join(directory, 'fleet.key'));
  const nowhere = { video: 1, admin: 1 };
  const appliances = { 'north-1': nowhere, 'north-2': nowhere, 'south-1': nowhere };
  const ports = { origin: 1, fill: port, steering: 1, appliances };
  const plan = processPlans({ directory, media: directory, ports, fillRate: null })['fill']!;
  const warden = new Warden();
  const fill = new DemoProcess(
    { ...plan, logFile: join(directory, 'fill.log'), env: { PATH: process.env['PATH']! } },
    {
      larder: join(packageRoot, 'dist', 'larder.js'),
      warden,
      token: issueToken(fleetKey, { role: 'operator', id: 'operator' }),
    },
  );
  try {
    await expect(fill.start()).rejects.toThrow(
      /fill ended with 2 instead of starting[^]*cannot listen at 127\.0\.0\.1/,
    );
  } finally {
    await fill.stop();
    warden.dismiss();
    await stranger.close();
    rmSync(directory, { recursive: true });
  }
});
