// A real connection on the short way: its handle is taken over, so what Node itself promises of a socket is asked for again.

import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { RequestQueue } from '../queue.ts';
import { DirectSocket } from '../socket.ts';
import { NativeBuffer } from '../../io/nonblocking-io.ts';
import { LaneRig } from './fast-path-rig.ts';
import { noise } from '../../test/rig.ts';

const MB = 2 ** 20;
const FILM = noise(9 * MB + 77);

describe('a socket that was taken over', () => {
  let player: Socket;
  let received: Socket;
  let fast: DirectSocket;
  const heard: Buffer[] = [];

  beforeEach(async () => {
    heard.length = 0;
    const server = createServer({ pauseOnConnect: true });
    await once(server.listen(0, '127.0.0.1'), 'listening');
    player = connect((server.address() as AddressInfo).port, '127.0.0.1');
    [received] = (await once(server, 'connection')) as [Socket];
    server.close();
    fast = new DirectSocket(received, (buffer, bytes) => heard.push(Buffer.from(buffer.subarray(0, bytes))));
    fast.stream.on('error', () => undefined);
  });
  afterEach(() => {
    player.destroy();
    fast.stream.destroy();
  });

  test('what there is room for has left when the call returns', async () => {
    const memory = new NativeBuffer(Buffer.allocUnsafeSlow(100));
    memory.buffer.write('some bytes', 20);
    // False would mean that this Node hides its handles: then all goes by the stream, and slower.
    expect(fast.write(memory, 25, 30, () => expect.unreachable())).toBe(true);
    memory.buffer.fill(0);
    expect(String((await once(player, 'data'))[0])).toBe('bytes');
  });

  test('for a reader who does not read the system holds little, and as much as it likes where that is lifted', () => {
    const memory = new NativeBuffer(Buffer.allocUnsafeSlow(16 * MB));
    const { fd } = (fast.stream as unknown as { readonly _handle: { readonly fd: number } })._handle;
    const held = (): number => {
      let bytes = 0;
      for (let sent = -1; sent !== 0; bytes += sent) sent = memory.sendNonblocking(fd, 0, 65_536);
      return bytes;
    };
    const limited = held();
    expect(limited).toBeGreaterThan(0);
    fast.limitUnsent(false);
    const more = held();
    expect(more).toBeGreaterThan(limited);
    fast.limitUnsent(true);
    expect(held()).toBe(0);
  });

  test('what there is no room for follows, in order, and is told once it has left', async () => {
    const memory = new NativeBuffer(Buffer.allocUnsafeSlow(16 * MB));
    memory.buffer.set(noise(16 * MB));
    const left = new Promise((resolve) => {
      expect(fast.write(memory, 0, 8 * MB, () => undefined)).toBe(false);
      expect(fast.write(memory, 8 * MB, 16 * MB, resolve)).toBe(false);
    });
    let at = 0;
    player.on('data', (chunk: Buffer) => {
      expect(chunk.equals(memory.buffer.subarray(at, at + chunk.length))).toBe(true);
      at += chunk.length;
    });
    await left;
    fast.stream.end();
    await once(player, 'end');
    expect(at).toBe(16 * MB);
  });

  test('nothing overtakes what the stream still holds', async () => {
    const memory = new NativeBuffer(Buffer.allocUnsafeSlow(6));
    memory.buffer.write('second');
    fast.stream.cork();
    fast.stream.write('first ');
    expect(fast.write(memory, 0, 6, () => undefined)).toBe(false);
    fast.stream.uncork();
    fast.stream.end();
    expect(String(await all(player))).toBe('first second');
  });

  test('what comes is heard in order, stops while it is paused, and ends', async () => {
    const sent = noise(3 * MB);
    player.write(sent.subarray(0, MB));
    await until(() => bytesIn(heard) === MB);
    fast.stream.pause();
    player.end(sent.subarray(MB));
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(bytesIn(heard)).toBe(MB);
    fast.stream.resume();
    await once(fast.stream, 'end');
    expect(Buffer.concat(heard).equals(sent)).toBe(true);
    // Who has said everything may still be answered.
    expect(fast.stream.writable).toBe(true);
  });

  test('a peer that breaks off closes it, and a write after that is no fault', async () => {
    const closed = new Promise((resolve) => fast.stream.once('close', resolve));
    player.resetAndDestroy();
    await closed;
    const error = await new Promise((resolve) =>
      fast.write(new NativeBuffer(Buffer.allocUnsafeSlow(10)), 0, 10, resolve),
    );
    expect(error).toBeInstanceOf(Error);
  });

  test('the socket that it was is gone, and knows of no end', () => {
    expect(received).not.toBe(fast.stream);
    expect(received.destroyed).toBe(true);
    expect(fast.stream.remoteAddress).toBe('127.0.0.1');
  });
});

describe('a player over a real connection', () => {
  let rig: LaneRig;

  beforeEach(async () => {
    rig = new LaneRig('alone');
    await rig.put('/film', FILM);
    rig.counters.drain(0);
  });
  afterEach(() => rig.close());

  test('asks, says that this was all, and is answered in full', async () => {
    const player = await rig.connect();
    player.end('GET /film HTTP/1.1\r\nHost: x\r\n\r\n');
    const received = await all(player);
    expect(received.subarray(received.indexOf('\r\n\r\n') + 4).equals(FILM)).toBe(true);
    expect(rig.count('larder_fast_path_total')).toBe(1);
  });

  test('sends a body by the long way, beside others: what is read later lies as it came', async () => {
    rig.http.removeAllListeners('request').on('request', (request: IncomingMessage, response: ServerResponse) => {
      const taken: Buffer[] = [];
      // Not before others were read.
      setTimeout(() => {
        request.on('data', (chunk: Buffer) => taken.push(chunk));
        request.on('end', () => response.end(Buffer.concat(taken)));
      }, 20);
    });
    const upload = async (seed: number): Promise<void> => {
      const body = noise(MB, seed);
      const player = await rig.connect();
      player.write(`PUT /film HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${body.length}\r\n\r\n`);
      player.write(body);
      const answer = await all(player);
      expect(answer.subarray(answer.indexOf('\r\n\r\n') + 4).equals(body)).toBe(true);
    };
    await Promise.all([1, 2, 3, 4].map(upload));
  });

  test('stops reading in the middle and goes on: no byte is lost or changed', async () => {
    const player = await rig.connect();
    player.write('GET /film HTTP/1.1\r\nHost: x\r\n\r\n');
    const chunks: Buffer[] = [];
    let pauses = 0;
    for await (const chunk of player) {
      chunks.push(chunk as Buffer);
      if (bytesIn(chunks) > pauses * MB) {
        pauses += 1;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      if (bytesIn(chunks) >= chunks[0]!.indexOf('\r\n\r\n') + 4 + FILM.length) break;
    }
    const received = Buffer.concat(chunks);
    expect(received.subarray(received.indexOf('\r\n\r\n') + 4).equals(FILM)).toBe(true);
  });
});

test('a queue answers in the order of asking, a few in a turn of the loop', async () => {
  const queue = new RequestQueue();
  const answered: number[] = [];
  const perTurn: number[] = [];
  const add = (number: number): void =>
    queue.add({
      answer: () => {
        answered.push(number);
        if (number < 20) add(number + 100);
      },
    });
  for (let number = 0; number < 50; number += 1) add(number);
  for (let before = -1; before < answered.length;) {
    before = answered.length;
    await new Promise((resolve) => setImmediate(resolve));
    perTurn.push(answered.length - before);
  }
  expect(answered).toEqual([...Array(50).keys(), ...Array.from({ length: 20 }, (_, at) => at + 100)]);
  expect(Math.max(...perTurn)).toBeLessThanOrEqual(16);
});

const bytesIn = (chunks: readonly Buffer[]): number => chunks.reduce((sum, { length }) => sum + length, 0);

async function all(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

async function until(condition: () => boolean): Promise<void> {
  const end = performance.now() + 10_000;
  while (!condition()) {
    if (performance.now() > end) throw new Error('condition not met in 10 s');
    await new Promise((resolve) => setImmediate(resolve));
  }
}
