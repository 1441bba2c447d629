// Probes of real sockets: one that answers, one where nobody listens, and one that accepts connections but never answers.

import { createServer, type Server } from 'node:http';
import { createServer as createTcpServer, type Server as TcpServer, type AddressInfo, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../runtime/clock.ts';
import type { ProbeResult } from '../health.ts';
import { Prober, PROBE_TIMEOUT_MS } from '../probe.ts';
import { closeServer, listen, until } from './harness.ts';

const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

async function answeringServer(
  status: number,
): Promise<{ readonly url: string; readonly server: Server; readonly seen: string[] }> {
  const seen: string[] = [];
  const server = createServer((incoming, outgoing) => {
    seen.push(`${incoming.method} ${incoming.url} ${incoming.headers.connection}`);
    outgoing.statusCode = status;
    outgoing.end('x'.repeat(1000));
  });
  const { port } = await listen(server);
  closing.push(() => closeServer(server));
  return { url: `http://127.0.0.1:${port}/`, server, seen };
}

/** Accepts and reads but never answers, like a process after SIGSTOP. */
async function silentServer(): Promise<{ readonly url: string; readonly sockets: Set<Socket> }> {
  const sockets = new Set<Socket>();
  const server: TcpServer = createTcpServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => undefined);
    socket.resume();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closing.push(
    () =>
      new Promise((resolve) => {
        for (const socket of sockets) socket.destroy();
        server.close(resolve);
      }),
  );
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, sockets };
}

function aProber(targets: { id: string; url: string }[]): {
  readonly prober: Prober;
  readonly results: [string, ProbeResult][];
} {
  const results: [string, ProbeResult][] = [];
  const prober = new Prober({
    targets: () => targets,
    onResult: (id, result) => results.push([id, result]),
    clock: systemClock,
  });
  return { prober, results };
}

describe('a probe', () => {
  it.each([204, 404, 503])('counts status %d as an answer and opens its own connection', async (status) => {
    const appliance = await answeringServer(status);
    const { prober, results } = aProber([{ id: 'a', url: appliance.url }]);
    await prober.round();
    await prober.round();
    expect(results).toEqual([
      ['a', 'answered'],
      ['a', 'answered'],
    ]);
    expect(appliance.seen).toEqual(['OPTIONS / close', 'OPTIONS / close']);
  });

  it('is refused at once where nobody listens', async () => {
    const appliance = await answeringServer(204);
    await closeServer(appliance.server);
    const { prober, results } = aProber([{ id: 'a', url: appliance.url }]);
    const startedMs = systemClock.monotonic();
    await prober.round();
    expect(results).toEqual([['a', 'refused']]);
    expect(systemClock.monotonic() - startedMs).toBeLessThan(PROBE_TIMEOUT_MS / 2);
  });

  it('without an answer is missed within the timeout and leaves no socket open', async () => {
    const appliance = await silentServer();
    const { prober, results } = aProber([{ id: 'a', url: appliance.url }]);
    const startedMs = systemClock.monotonic();
    await prober.round();
    const tookMs = systemClock.monotonic() - startedMs;
    expect(results).toEqual([['a', 'missed']]);
    expect(tookMs).toBeGreaterThan(PROBE_TIMEOUT_MS * 0.8);
    expect(tookMs).toBeLessThan(PROBE_TIMEOUT_MS * 2);
    await until(() => appliance.sockets.size === 0, 'the socket is closed');
  });

  it('in flight is not repeated', async () => {
    const appliance = await silentServer();
    const target = { id: 'a', url: appliance.url };
    const { prober, results } = aProber([target]);
    await Promise.all([prober.probe(target), prober.probe(target), prober.round()]);
    expect(results).toHaveLength(1);
  });

  it('of a silent appliance does not delay the others', async () => {
    const [silent, responsive] = [await silentServer(), await answeringServer(204)];
    const { prober, results } = aProber([
      { id: 'responsive', url: responsive.url },
      { id: 'silent', url: silent.url },
    ]);
    const round = prober.round();
    await until(() => results.length === 1, 'the responsive one answers');
    expect(results).toEqual([['responsive', 'answered']]);
    await round;
  });

  it('is no longer sent once the signal aborts', async () => {
    const appliance = await answeringServer(204);
    const { prober, results } = aProber([{ id: 'a', url: appliance.url }]);
    const stop = new AbortController();
    const loop = prober.run(stop.signal);
    await until(() => results.length > 0, 'a first round at once');
    stop.abort();
    await loop;
  });
});
