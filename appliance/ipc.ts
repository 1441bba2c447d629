// What the supervisor and its children say to each other over IPC.

import type { ApplianceConfig } from './config.ts';
import type { ProxyIdentity } from './http/response-headers.ts';
import type { KeyMode } from './http/asset-key.ts';
import type { TlsSecrets } from './tls/certificate-store.ts';

/** Of a child's pool, whose work is to wait for disks: what is quick must not queue behind what is slow. */
export const DISK_THREADS = 32;

export interface WorkerSpec {
  readonly appliance: string;
  readonly worker: number;
  readonly origin: string;
  readonly mode: KeyMode;
  readonly identity: ProxyIdentity;
  readonly connectionsMax: number;
  /** File of the access record. */
  readonly accessLog: string | null;
  /** Null without TLS; else what players may speak. The certificate comes as a message. */
  readonly tls: { readonly http2: boolean } | null;
}

export interface StorekeeperSpec {
  readonly config: ApplianceConfig;
}

export type FromSupervisor =
  | { readonly kind: 'socket'; readonly number: number }
  /** To workers: the first thing they are told where there is TLS, and told again when it changes. */
  | { readonly kind: 'tls'; readonly state: TlsSecrets }
  /** To the storekeeper: the appliance is about to stop; workers are ending their answers. */
  | { readonly kind: 'prepare-drain' }
  /** End what runs, then leave. */
  | { readonly kind: 'drain' };

export type ToSupervisor =
  /** A worker can take connections; a storekeeper serves its sockets. */
  { readonly kind: 'ready' } | { readonly kind: 'accepted'; readonly number: number } | { readonly kind: 'drained' };
