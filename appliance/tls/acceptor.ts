// Where a worker speaks TLS: a raw connection goes in, what comes out is a connection of HTTP/1.1 or, where configured, one of
// HTTP/2. Certificates and ticket keys change while connections go on with what they began with.

import type { Socket } from 'node:net';
import { createServer, type SecureContextOptions, type Server, type TLSSocket } from 'node:tls';
import type { Tally } from '../metrics.ts';
import type { TlsState } from './certificate-store.ts';
import { contextOf } from './material.ts';

export interface DoorDeps {
  readonly state: TlsState;
  readonly handshakeMs: number;
  readonly tally: Tally;
  readonly http1: (socket: TLSSocket) => void;
  /** Null where HTTP/2 is not offered. */
  readonly http2: ((socket: TLSSocket) => void) | null;
}

export class TlsDoor {
  readonly #server: Server;

  constructor({ state, handshakeMs, tally, http1, http2 }: DoorDeps) {
    this.#server = createServer({
      ...optionsOf(state),
      handshakeTimeout: handshakeMs,
      ALPNProtocols: http2 === null ? ['http/1.1'] : ['h2', 'http/1.1'],
    });
    this.#server.on('secureConnection', (socket) => {
      tally.add('larder_tls_handshakes_total', 1, { outcome: socket.isSessionReused() ? 'resumed' : 'full' });
      if (http2 !== null && socket.alpnProtocol === 'h2') http2(socket);
      else http1(socket);
    });
    this.#server.on('tlsClientError', (_error, socket) => {
      tally.add('larder_tls_handshakes_total', 1, { outcome: 'failed' });
      socket.destroy();
    });
  }

  take(socket: Socket): Socket {
    this.#server.emit('connection', socket);
    return socket;
  }

  /** For connections from now on. */
  change(state: TlsState): void {
    this.#server.setSecureContext(optionsOf(state));
  }
}

const optionsOf = (state: TlsState): SecureContextOptions & { ticketKeys: Buffer } => ({
  ...contextOf(state),
  ticketKeys: Buffer.from(state.ticketKeys, 'base64'),
});
