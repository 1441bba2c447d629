// Where a worker speaks TLS: a raw connection goes in, what comes out is a connection of HTTP/1.1 or, where configured, one of
// HTTP/2. Certificates and ticket keys change while connections go on with what they began with.

import type { Socket } from 'node:net';
import { createServer, type SecureContextOptions, type Server, type TLSSocket } from 'node:tls';
import type { Counters } from '../metrics.ts';
import type { TlsSecrets } from './certificate-store.ts';
import { secureContextOptions } from './material.ts';

export interface TlsAcceptorDeps {
  readonly state: TlsSecrets;
  readonly handshakeMs: number;
  readonly counters: Counters;
  readonly http1: (socket: TLSSocket) => void;
  /** Null where HTTP/2 is not offered. */
  readonly http2: ((socket: TLSSocket) => void) | null;
}

export class TlsAcceptor {
  readonly #server: Server;

  constructor({ state, handshakeMs, counters, http1, http2 }: TlsAcceptorDeps) {
    this.#server = createServer({
      ...optionsOf(state),
      handshakeTimeout: handshakeMs,
      ALPNProtocols: http2 === null ? ['http/1.1'] : ['h2', 'http/1.1'],
    });
    this.#server.on('secureConnection', (socket) => {
      counters.add('larder_tls_handshakes_total', 1, { outcome: socket.isSessionReused() ? 'resumed' : 'full' });
      if (http2 !== null && socket.alpnProtocol === 'h2') http2(socket);
      else http1(socket);
    });
    this.#server.on('tlsClientError', (_error, socket) => {
      counters.add('larder_tls_handshakes_total', 1, { outcome: 'failed' });
      socket.destroy();
    });
  }

  accept(socket: Socket): Socket {
    this.#server.emit('connection', socket);
    return socket;
  }

  /** For connections from now on. */
  updateContext(state: TlsSecrets): void {
    this.#server.setSecureContext(optionsOf(state));
  }
}

const optionsOf = (state: TlsSecrets): SecureContextOptions & { ticketKeys: Buffer } => ({
  ...secureContextOptions(state),
  ticketKeys: Buffer.from(state.ticketKeys, 'base64'),
});
