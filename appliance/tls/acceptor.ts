// TLS: the appliance terminates it itself, in every worker, with one certificate and one set of session ticket keys.
//
// This file accepts a raw connection in a worker, does the handshake and passes the secured connection on as HTTP/1.1 or, if that is
// offered and negotiated, as HTTP/2. A renewed certificate applies to new connections; open ones keep what they began with.
//
// Read in this order:
//   material.ts            certificate and key files: read, validated, checked for expiry; the TLS settings
//   certificate-store.ts   in the supervisor: the certificate in force, ticket keys and their rotation
//   acceptor.ts            in a worker: the handshake
//   http2.ts               in a worker: HTTP/2 in front of the same request listener as node:http
//
// The worker uses `TlsAcceptor` and `Http2Acceptor`, the supervisor `CertificateStore`, and the turn-up checks the functions of
// material.ts. The supervisor sends `TlsSecrets` to its workers over IPC.

import type { Socket } from 'node:net';
import { createServer, type SecureContextOptions, type Server, type TLSSocket } from 'node:tls';
import type { Counters } from '../metrics.ts';
import type { TlsSecrets } from './certificate-store.ts';
import { secureContextOptions } from './material.ts';

export interface TlsAcceptorDeps {
  readonly secrets: TlsSecrets;
  readonly handshakeMs: number;
  readonly counters: Counters;
  readonly http1: (socket: TLSSocket) => void;
  /** Null where HTTP/2 is not offered. */
  readonly http2: ((socket: TLSSocket) => void) | null;
}

export class TlsAcceptor {
  readonly #server: Server;

  constructor({ secrets, handshakeMs, counters, http1, http2 }: TlsAcceptorDeps) {
    this.#server = createServer({
      ...optionsOf(secrets),
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

  /** Applies to new connections. */
  updateContext(secrets: TlsSecrets): void {
    this.#server.setSecureContext(optionsOf(secrets));
  }
}

const optionsOf = (secrets: TlsSecrets): SecureContextOptions & { ticketKeys: Buffer } => ({
  ...secureContextOptions(secrets),
  ticketKeys: Buffer.from(secrets.ticketKeys, 'base64'),
});
