// Probes at real sockets: one that answers, one where nobody listens, one that accepts and says nothing.

import { createServer, type Server } from 'node:http';
import { createServer as createTcpServer, type Server as TcpServer, type AddressInfo, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../runtime/log.ts';
import type { ProbeResult } from '../health.ts';
import { Prober, PROBE_TIMEOUT_MS } from '../probe.ts';
import { closeServer, listen, until } from './stage.ts';

const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

async function answering(
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

/** Accepts, reads, and never says a word: what SIGSTOP looks like from outside. */
async function mute(): Promise<{ readonly url: string; readonly sockets: Set<Socket> }> {
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
    probed: (id, result) => results.push([id, result]),
    log: silentLog,
  });
  return { prober, results };
}

describe('a probe', () => {
  it.each([204, 404, 503])('that gets %d has found life, on a connection of its own', async (status) => {
    const box = await answering(status);
    const { prober, results } = aProber([{ id: 'a', url: box.url }]);
    await prober.round();
    await prober.round();
    expect(results).toEqual([
      ['a', 'answered'],
      ['a', 'answered'],
    ]);
    expect(box.seen).toEqual(['OPTIONS / close', 'OPTIONS / close']);
  });

  it('where nobody listens is refused, at once', async () => {
    const box = await answering(204);
    await closeServer(box.server);
    const { prober, results } = aProber([{ id: 'a', url: box.url }]);
    const startedMs = performance.now();
    await prober.round();
    expect(results).toEqual([['a', 'refused']]);
    expect(performance.now() - startedMs).toBeLessThan(PROBE_TIMEOUT_MS / 2);
  });

  it('that gets no word is missed within its bound, and leaves no socket behind', async () => {
    const box = await mute();
    const { prober, results } = aProber([{ id: 'a', url: box.url }]);
    const startedMs = performance.now();
    await prober.round();
    const tookMs = performance.now() - startedMs;
    expect(results).toEqual([['a', 'missed']]);
    expect(tookMs).toBeGreaterThan(PROBE_TIMEOUT_MS * 0.8);
    expect(tookMs).toBeLessThan(PROBE_TIMEOUT_MS * 2);
    await until(() => box.sockets.size === 0, 'the socket is closed');
  });

  it('under way is not doubled', async () => {
    const box = await mute();
    const target = { id: 'a', url: box.url };
    const { prober, results } = aProber([target]);
    await Promise.all([prober.probe(target), prober.probe(target), prober.round()]);
    expect(results).toHaveLength(1);
  });

  it('of one silent box holds up no other', async () => {
    const [silent, lively] = [await mute(), await answering(204)];
    const { prober, results } = aProber([
      { id: 'lively', url: lively.url },
      { id: 'silent', url: silent.url },
    ]);
    const round = prober.round();
    await until(() => results.length === 1, 'the lively one answers');
    expect(results).toEqual([['lively', 'answered']]);
    await round;
  });

  it('round stops when it is told to', async () => {
    const box = await answering(204);
    const { prober, results } = aProber([{ id: 'a', url: box.url }]);
    const stop = new AbortController();
    const loop = prober.run(stop.signal);
    await until(() => results.length > 0, 'a first round at once');
    stop.abort();
    await loop;
  });
});
