// The assertion that a response reports a certain fault: status, Cache-Status and body, as the table of faults has them.

import { expect } from 'vitest';
import { FAULTS, type FaultCode } from '../../protocol/faults.ts';
import { field, type HttpResponse } from './http-client.ts';

export function expectFault(response: HttpResponse, code: FaultCode): void {
  const body = response.body.toString();
  expect({
    status: response.status,
    // Caches on the way append to the list.
    cacheStatus: field(response, 'cache-status')?.split(', ')[0],
    bodyStart: body.slice(0, code.length + 1),
  }).toEqual({
    status: FAULTS[code].status,
    cacheStatus: `larder; detail=${code}`,
    // A response to HEAD has no body.
    bodyStart: body === '' ? '' : `${code}:`,
  });
}
