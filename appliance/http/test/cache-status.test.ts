// Cache-Status and Proxy-Status byte by byte, because logs and tests match on them, and as structured fields that others parse.

import fc from 'fast-check';
import { parseList } from 'structured-headers';
import { describe, expect, test } from 'vitest';
import { Fault, FAULTS, type FaultCode } from '../../../protocol/faults.ts';
import {
  appendCacheStatus,
  bypassOutcome,
  forwardOutcome,
  hitOutcome,
  PARTIAL_MISS,
  type CacheOutcome,
} from '../cache-status.ts';
import { faultHeaders, relayHeaders } from '../response-headers.ts';

const IDENTITY = { reverseProxy: false, via: 'box-1' };
const forward = (
  reason: string,
  status: number | null,
  flags: { readonly stored?: boolean; readonly collapsed?: boolean } = {},
): CacheOutcome => forwardOutcome({ reason, status, stored: false, collapsed: false, ...flags });

describe('the outcome of a request', () => {
  test.each<readonly [CacheOutcome, CacheOutcome['metric'], string]>([
    [hitOutcome(null), 'hit', 'larder; hit'],
    [hitOutcome(Number.POSITIVE_INFINITY), 'hit', 'larder; hit'],
    [hitOutcome(59_999), 'hit', 'larder; hit; ttl=59'],
    [hitOutcome(0), 'hit', 'larder; hit; ttl=0'],
    [hitOutcome(-0), 'hit', 'larder; hit; ttl=0'],
    [hitOutcome(-1), 'stale', 'larder; hit; ttl=-1'],
    [PARTIAL_MISS, 'partial', 'larder; fwd=partial'],
    [forward('uri-miss', 200), 'miss', 'larder; fwd=uri-miss; fwd-status=200'],
    [
      forward('vary-miss', 206, { stored: true, collapsed: true }),
      'miss',
      'larder; fwd=vary-miss; fwd-status=206; stored; collapsed',
    ],
    [forward('uri-miss', 206, { stored: true }), 'miss', 'larder; fwd=uri-miss; fwd-status=206; stored'],
    [forward('partial', null, { collapsed: true }), 'partial', 'larder; fwd=partial; collapsed'],
    [forward('stale', 304), 'revalidated', 'larder; fwd=stale; fwd-status=304'],
    [forward('request', 304), 'revalidated', 'larder; fwd=request; fwd-status=304'],
    [forward('stale', 503), 'stale', 'larder; fwd=stale; fwd-status=503'],
    [forward('stale', null), 'stale', 'larder; fwd=stale'],
    [forward('stale', 200), 'miss', 'larder; fwd=stale; fwd-status=200'],
    [bypassOutcome('method', 204), 'bypass', 'larder; fwd=method; fwd-status=204'],
    [bypassOutcome('request', 200, ''), 'bypass', 'larder; fwd=request; fwd-status=200'],
    [
      bypassOutcome('bypass', 200, 'storekeeper-down'),
      'bypass',
      'larder; fwd=bypass; fwd-status=200; detail=storekeeper-down',
    ],
    [bypassOutcome('bypass', 200, 'no-store'), 'bypass', 'larder; fwd=bypass; fwd-status=200; detail="no-store"'],
    [
      bypassOutcome('bypass', 200, 'length unknown'),
      'bypass',
      'larder; fwd=bypass; fwd-status=200; detail="length unknown"',
    ],
  ])('%j', (outcome, metric, status) => {
    expect(outcome).toEqual({ metric, status });
  });

  test('is always a list of one structured item, whatever the detail', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme-ascii', maxLength: 40 }), (detail) => {
        const members = parseList(bypassOutcome('bypass', 200, detail).status);
        expect(members).toHaveLength(1);
        const [name, parameters] = members[0]!;
        expect(String(name)).toBe('larder');
        expect(parameters.get('detail') ?? '').toBe(detail);
      }),
    );
  });
});

describe('an error of our own', () => {
  test('names its fault in Cache-Status, and its type in Proxy-Status where RFC 9209 has one', () => {
    const headers = (code: FaultCode): unknown => {
      const fields = faultHeaders(new Fault(code, 'x'), 1, IDENTITY);
      return [fields['cache-status'], fields['proxy-status']];
    };
    expect(headers('origin_timeout')).toEqual([
      'larder; detail=origin_timeout',
      'larder; error=connection_read_timeout; details="origin_timeout"',
    ]);
    expect(headers('not_stored')).toEqual(['larder; detail=not_stored', undefined]);
  });

  test.each(Object.keys(FAULTS) as FaultCode[])('%s gives valid structured fields', (code) => {
    const fields = faultHeaders(new Fault(code, 'x'), 1, IDENTITY);
    expect(parseList(String(fields['cache-status']))).toHaveLength(1);
    if (fields['proxy-status'] !== undefined) expect(parseList(String(fields['proxy-status']))).toHaveLength(1);
  });
});

describe('behind the Cache-Status of an upstream cache', () => {
  test.each([
    [undefined, 'larder; fwd=partial'],
    ['', 'larder; fwd=partial'],
    ['varnish;hit', 'varnish;hit, larder; fwd=partial'],
    ['a; hit, b; fwd=miss', 'a; hit, b; fwd=miss, larder; fwd=partial'],
    ['not (a list', 'not (a list, larder; fwd=partial'],
  ])('%j is kept as it is', (upstream, expected) => {
    expect(appendCacheStatus(upstream, PARTIAL_MISS)).toBe(expected);
    const headers: Record<string, string> = upstream === undefined ? {} : { 'cache-status': upstream };
    expect(relayHeaders(headers, PARTIAL_MISS, IDENTITY)['cache-status']).toBe(expected);
  });
});
