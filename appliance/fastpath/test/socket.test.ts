// TCP connections on the fast path. It takes over the handle of the socket, so what Node guarantees of a socket is tested
// again.

import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { RequestQueue } from '../queue.ts';
import { DirectSocket } from '../socket.ts';
import { NativeBuffer } from '../../io/nonblocking-io.ts';
import { FastPathRig } from './fast-path-rig.ts';
import { noise } from '../../test/rig.ts';
import { deferred, eventLoopRounds, until } from '../../test/waiting.ts';

const MB = 2 ** 20;
const FILM = noise(9 * MB + 77);

describe('a socket whose handle was taken over', () => {
  let client: Socket;
  let received: Socket;
  let fast: DirectSocket;
  const chunks: Buffer[] = [];

  beforeEach(async () => {
    chunks.length = 0;
    const server = createServer({ pauseOnConnect: true });
    await once(server.listen(0, '127.0.0.1'), 'listening');
    client = connect((server.address() as AddressInfo).port, '127.0.0.1');
    [received] = (await once(server, 'connection')) as [Socket];
    server.close();
    fast = new DirectSocket(received, (buffer, bytes) => chunks.push(Buffer.from(buffer.subarray(0, bytes))));
    fast.stream.on('error', () => undefined);
  });
  afterEach(() => {
    client.destroy();
    fast.stream.destroy();
  });

  test('what fits the socket buffer has been sent when the call returns', async () => {
    const memory = new NativeBuffer(Buffer.allocUnsafeSlow(100));
    memory.buffer.write('some bytes', 20);
    // False would mean that this version of Node hides its handles: then all bytes go through the stream, and slower.
    expect(fast.write(memory, 25, 30, () => expect.unreachable())).toBe(true);
    memory.buffer.fill(0);
    expect(String((await once(client, 'data'))[0])).toBe('bytes');
  });

  test('the kernel buffers little for a reader that does not read, and more once the limit is lifted', () => {
    const memory = new NativeBuffer(Buffer.allocUnsafeSlow(16 * MB));
    const { fd } = (fast.stream as unknown as { readonly _handle: { readonly fd: number } })._handle;
    const fillSendBuffer = (): number => {
      let bytes = 0;
      for (let sent = -1; sent !== 0; bytes += sent) sent = memory.sendNonblocking(fd, 0, 65_536);
      return bytes;
    };
    const limited = fillSendBuffer();
    expect(limited).toBeGreaterThan(0);
    fast.limitUnsent(false);
    const more = fillSendBuffer();
    expect(more).toBeGreaterThan(limited);
    fast.limitUnsent(true);
    expect(fillSendBuffer()).toBe(0);
  });

  test('what does not fit follows in order, and the callback runs once it has been sent', async () => {
    const memory = new NativeBuffer(Buffer.allocUnsafeSlow(16 * MB));
    memory.buffer.set(noise(16 * MB));
    const sent = new Promise((resolve) => {
      expect(fast.write(memory, 0, 8 * MB, () => undefined)).toBe(false);
      expect(fast.write(memory, 8 * MB, 16 * MB, resolve)).toBe(false);
    });
    let at = 0;
    client.on('data', (chunk: Buffer) => {
      expect(chunk.equals(memory.buffer.subarray(at, at + chunk.length))).toBe(true);
      at += chunk.length;
    });
    await sent;
    fast.stream.end();
    await once(client, 'end');
    expect(at).toBe(16 * MB);
  });

  test('a direct write does not overtake what the stream still holds', async () => {
    const memory = new NativeBuffer(Buffer.allocUnsafeSlow(6));
    memory.buffer.write('second');
    fast.stream.cork();
    fast.stream.write('first ');
    expect(fast.write(memory, 0, 6, () => undefined)).toBe(false);
    fast.stream.uncork();
    fast.stream.end();
    expect(String(await readAll(client))).toBe('first second');
  });

  test('received bytes come in order, none while the stream is paused, and then the end', async () => {
    const sent = noise(3 * MB);
    client.write(sent.subarray(0, MB));
    await until(() => bytesIn(chunks) === MB);
    fast.stream.pause();
    client.end(sent.subarray(MB));
    // The bytes are in the kernel: a socket that still read would have got them by now.
    await eventLoopRounds();
    expect(bytesIn(chunks)).toBe(MB);
    fast.stream.resume();
    await once(fast.stream, 'end');
    expect(Buffer.concat(chunks).equals(sent)).toBe(true);
    // A client that has closed its half may still be answered.
    expect(fast.stream.writable).toBe(true);
  });

  test('a reset by the peer closes it, and a write after that reports an error', async () => {
    const closed = new Promise((resolve) => fast.stream.once('close', resolve));
    client.resetAndDestroy();
    await closed;
    const error = await new Promise((resolve) =>
      fast.write(new NativeBuffer(Buffer.allocUnsafeSlow(10)), 0, 10, resolve),
    );
    expect(error).toBeInstanceOf(Error);
  });

  test('the original socket is destroyed, and the new one knows the address of the peer', () => {
    expect(received).not.toBe(fast.stream);
    expect(received.destroyed).toBe(true);
    expect(fast.stream.remoteAddress).toBe('127.0.0.1');
  });
});

describe('a client over TCP', () => {
  let rig: FastPathRig;

  beforeEach(async () => {
    rig = new FastPathRig('alone');
    await rig.put('/film', FILM);
    rig.counters.drain(0);
  });
  afterEach(() => rig.close());

  test('that closes its half after the request gets the whole response', async () => {
    const client = await rig.connect();
    client.end('GET /film HTTP/1.1\r\nHost: x\r\n\r\n');
    const received = await readAll(client);
    expect(received.subarray(received.indexOf('\r\n\r\n') + 4).equals(FILM)).toBe(true);
    expect(rig.drainCount('larder_fast_path_total')).toBe(1);
  });

  test('that uploads through node:http, beside others, is read unchanged even if it is read late', async () => {
    const UPLOADS = 4;
    const allArrived = deferred();
    let arrived = 0;
    rig.http.removeAllListeners('request').on('request', (request: IncomingMessage, response: ServerResponse) => {
      // No body is read before all requests have come.
      if ((arrived += 1) === UPLOADS) allArrived.resolve();
      void allArrived.promise.then(() => {
        const body: Buffer[] = [];
        request.on('data', (chunk: Buffer) => body.push(chunk));
        request.on('end', () => response.end(Buffer.concat(body)));
      });
    });
    const upload = async (seed: number): Promise<void> => {
      const body = noise(MB, seed);
      const client = await rig.connect();
      client.write(`PUT /film HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${body.length}\r\n\r\n`);
      client.write(body);
      const answer = await readAll(client);
      expect(answer.subarray(answer.indexOf('\r\n\r\n') + 4).equals(body)).toBe(true);
    };
    await Promise.all(Array.from({ length: UPLOADS }, (_, at) => upload(at + 1)));
  });

  test('that pauses in mid-response and reads on gets every byte', async () => {
    const client = await rig.connect();
    client.write('GET /film HTTP/1.1\r\nHost: x\r\n\r\n');
    const chunks: Buffer[] = [];
    let pauses = 0;
    for await (const chunk of client) {
      chunks.push(chunk as Buffer);
      if (bytesIn(chunks) > pauses * MB) {
        pauses += 1;
        // Long enough for the server to fill the buffers of the kernel.
        await eventLoopRounds(50);
      }
      if (bytesIn(chunks) >= chunks[0]!.indexOf('\r\n\r\n') + 4 + FILM.length) break;
    }
    const received = Buffer.concat(chunks);
    expect(received.subarray(received.indexOf('\r\n\r\n') + 4).equals(FILM)).toBe(true);
  });
});

test('a queue answers in the order of the requests, at most 16 in a round of the event loop', async () => {
  const queue = new RequestQueue();
  const answered: number[] = [];
  const perRound: number[] = [];
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
    await eventLoopRounds(1);
    perRound.push(answered.length - before);
  }
  expect(answered).toEqual([...Array(50).keys(), ...Array.from({ length: 20 }, (_, at) => at + 100)]);
  expect(Math.max(...perRound)).toBeLessThanOrEqual(16);
});

const bytesIn = (chunks: readonly Buffer[]): number => chunks.reduce((sum, { length }) => sum + length, 0);

async function readAll(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
