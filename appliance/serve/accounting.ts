// The accounts of an answered request: metrics, bytes served per holding, the access log.

import type { IncomingMessage } from 'node:http';
import type { HoldingId } from '../../protocol/ids.ts';
import type { AccessLog } from './access-log.ts';
import type { WorkerCounters } from './counters.ts';

export interface AccountingDeps {
  readonly counters: WorkerCounters;
  readonly access: AccessLog | null;
}

export interface ServedResponse {
  readonly status: number;
  /** What the cache did, or the fault's code; `-` when neither applies. */
  readonly outcome: string;
  readonly bodyBytes: number;
  /** Bytes of the body that came from the origin. */
  readonly fetchedBytes: number;
  /** Null when the body counts for no holding; undefined when there was none to count. */
  readonly holding?: HoldingId | null;
}

export function accountFor(
  { counters, access }: AccountingDeps,
  request: IncomingMessage,
  served: ServedResponse,
): void {
  const { status, outcome, bodyBytes, fetchedBytes, holding } = served;
  counters.add('larder_requests_total', 1, { method: request.method ?? 'GET', status: String(status) });
  const storedBytes = bodyBytes - fetchedBytes;
  if (storedBytes > 0) counters.add('larder_served_bytes_total', storedBytes, { source: 'store' });
  if (fetchedBytes > 0) counters.add('larder_served_bytes_total', fetchedBytes, { source: 'origin' });
  if (holding !== undefined) counters.served(holding, bodyBytes);
  access?.end(request, { status, bytes: bodyBytes, outcome });
}
