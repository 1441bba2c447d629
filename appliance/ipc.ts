// Messages between the supervisor and its children, and the specifications that the children get in their environment.

import type { ApplianceConfig } from './config.ts';
import type { ProxyIdentity } from './http/response-headers.ts';
import type { KeyMode } from './http/asset-key.ts';
import type { TlsSecrets } from './tls/certificate-store.ts';

export interface WorkerSpec {
  readonly appliance: string;
  readonly worker: number;
  readonly origin: string;
  readonly mode: KeyMode;
  readonly identity: ProxyIdentity;
  readonly connectionsMax: number;
  /** File of the access log; null for none. */
  readonly accessLog: string | null;
  /** Null without TLS. The certificate follows in a message. */
  readonly tls: { readonly http2: boolean } | null;
}

export interface StorekeeperSpec {
  readonly config: ApplianceConfig;
}

export type FromSupervisor =
  /** To a worker, with the handle of an accepted connection. */
  | { readonly kind: 'socket'; readonly number: number }
  /** To workers, if they speak TLS: once before any connection, and whenever the secrets change. */
  | { readonly kind: 'tls'; readonly secrets: TlsSecrets }
  /** To the storekeeper: the appliance is about to stop; workers are finishing their responses. */
  | { readonly kind: 'prepare-drain' }
  /** Finish what is under way, then exit. */
  | { readonly kind: 'drain' };

export type ToSupervisor =
  /** A worker accepts connections; a storekeeper listens on its sockets. */
  | { readonly kind: 'ready' }
  /** A worker has its own descriptor of a connection. */
  | { readonly kind: 'accepted'; readonly number: number }
  /** The event loop of the child turns. */
  | { readonly kind: 'beat' }
  | { readonly kind: 'drained' };
