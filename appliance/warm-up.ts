// Exercises what a process answers its first miss with, before it says that it is ready: Node compiles a function when it is first
// called, and the origin client takes 60 ms to load, which the first viewer of an uncached asset would wait for.

import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { consume } from '../runtime/backpressure.ts';
import { undici } from '../runtime/undici.ts';

const BODY_BYTES = 2 ** 18;
const REQUESTS = 2;
const TIMEOUT_MS = 1_000;

/** The origin client of the storekeeper. */
export const warmUpOriginClient = (): Promise<void> =>
  withServer(async (port) => {
    const { Pool } = undici();
    const pool = new Pool(`http://127.0.0.1:${port}`, { headersTimeout: TIMEOUT_MS, bodyTimeout: TIMEOUT_MS });
    for (let count = 0; count < REQUESTS; count += 1) {
      const { body } = await pool.request({ method: 'GET', path: '/', headers: { range: 'bytes=0-' } });
      await consume(body, () => true);
    }
    await pool.destroy();
  });

/** The server of a worker. */
export const warmUpServer = (): Promise<void> =>
  withServer(async (port) => {
    for (let count = 0; count < REQUESTS; count += 1) {
      const socket = connect({ port, host: '127.0.0.1', timeout: TIMEOUT_MS }, () =>
        socket.write('GET / HTTP/1.1\r\nHost: warm-up\r\nRange: bytes=0-\r\nConnection: close\r\n\r\n'),
      );
      socket.on('timeout', () => socket.destroy()).resume();
      await once(socket, 'close');
    }
  });

/** A machine without a loopback interface starts cold: what else is wrong the first request will tell. */
async function withServer(work: (port: number) => Promise<void>): Promise<void> {
  const server = createServer((_request, response) => {
    response.writeHead(206, { 'content-type': 'video/mp4', 'content-length': BODY_BYTES, etag: '"warm-up"' });
    response.end(Buffer.allocUnsafe(BODY_BYTES));
  });
  try {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    await work((server.address() as AddressInfo).port);
  } catch {
    // As above.
  } finally {
    server.close();
    server.closeAllConnections();
  }
}
