// Draining on SIGTERM: no new connections, running responses end, and the drain timeout bounds the wait.

import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { afterEach, expect, test } from 'vitest';
import { sendRequest } from './http-client.ts';
import { noise, RunningAppliance, ScriptedOrigin } from './rig.ts';

const FILM = noise(24 * 2 ** 20);
let appliance: RunningAppliance;
let origin: ScriptedOrigin;

async function startWithFilm(flags: readonly string[] = []): Promise<void> {
  origin = await ScriptedOrigin.start();
  appliance = await RunningAppliance.start({ origin: origin.url, flags });
  origin.put('/film', FILM);
  await sendRequest(appliance.port, { path: '/film' });
}

afterEach(async () => {
  await appliance.stop();
  await origin.stop();
});

/** A response whose body has not been read yet. */
function openPaused(url: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    httpRequest(url, { agent: false }, (response) => resolve(response.pause()))
      .on('error', reject)
      .end();
  });
}

async function readRest(response: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

test('SIGTERM refuses new connections, lets a running response end, and exits with 0', async () => {
  await startWithFilm();
  const running = await openPaused(`${appliance.url}/film`);
  process.kill(appliance.process.pid!, 'SIGTERM');
  await appliance.until(() => appliance.log.includes('"draining"'));
  await expect(fetch(`${appliance.url}/film`)).rejects.toThrow();
  const exited = once(appliance.process, 'exit');
  expect((await readRest(running)).equals(FILM)).toBe(true);
  expect((await exited)[0]).toBe(0);
});

test('a reader that never ends does not delay the exit beyond --drain-timeout', async () => {
  await startWithFilm(['--drain-timeout', '1s']);
  const stalled = await openPaused(`${appliance.url}/film`);
  stalled.on('error', () => undefined);
  const exited = once(appliance.process, 'exit');
  process.kill(appliance.process.pid!, 'SIGTERM');
  expect((await exited)[0]).toBe(0);
  expect(appliance.log).toMatch(/drain bound reached/);
  stalled.destroy();
});
