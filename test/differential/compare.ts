// What differs between two responses to the same request, one entry for each thing that a client can observe: status, every
// field, body, parts, and whether the connection stays open. Responses of different status are not compared further, but what
// an appliance sends is always checked against the file.

import {
  field,
  multipartParts,
  parseContentRange,
  type BodyPart,
  type HttpResponse,
} from '../../appliance/test/http-client.ts';
import type { Observation } from './observe.ts';
import type { Case, Request } from './requests.ts';

/** Which two are compared: nginx, an appliance with a cold asset, the same appliance with the asset stored. */
export type Between = 'nginx-cold' | 'nginx-warm' | 'cold-warm';

export interface Difference {
  /** `status`, `body`, `parts`, `response`, `persistence`, `correctness`, or the name of a field and a colon. */
  readonly aspect: string;
  readonly between: Between;
  readonly case: Case;
  readonly request: Request;
  readonly expected: Observation;
  readonly actual: Observation;
  /** Expected and actual value, for people. */
  readonly detail: string;
}

type Finding = readonly [aspect: string, detail: string];

export function differences(pair: Omit<Difference, 'aspect' | 'detail'>): Difference[] {
  const { expected, actual, request } = pair;
  const findings: Finding[] = [];
  if (actual.kind === 'broken') findings.push(['correctness', actual.reason]);
  if (actual.kind === 'response')
    for (const reason of violations(request, actual)) findings.push(['correctness', reason]);
  // A server that closes with unread requests discards data in flight, so nothing is known of a response that broke off.
  if (expected.kind !== 'response' || expected.response.complete)
    findings.push(...compareObservations(expected, actual));
  return findings.map(([aspect, detail]) => ({ ...pair, aspect, detail }));
}

function compareObservations(expected: Observation, actual: Observation): Finding[] {
  if (expected.kind !== 'response' || actual.kind !== 'response')
    return expected.kind === actual.kind ? [] : [['response', `${summaryOf(expected)} | ${summaryOf(actual)}`]];
  const [from, to] = [expected.response.status, actual.response.status];
  const findings: Finding[] =
    from === to ? compareContents(expected.response, actual.response) : [['status', `${from} | ${to}`]];
  if (expected.open !== actual.open)
    findings.push(['persistence', `${persistenceOf(expected.open)} | ${persistenceOf(actual.open)}`]);
  return findings;
}

function summaryOf(observation: Observation): string {
  if (observation.kind === 'response') return String(observation.response.status);
  return observation.kind === 'closed' ? 'closed' : `broken: ${observation.reason}`;
}

const persistenceOf = (open: boolean): string => (open ? 'stays open' : 'closes');

/** Compares two responses of the same status. */
function compareContents(expected: HttpResponse, actual: HttpResponse): Finding[] {
  const findings: Finding[] = [];
  const [expectedParts, actualParts] = [partsOf(expected), partsOf(actual)];
  for (const name of new Set([...expected.fields, ...actual.fields].map(([key]) => key))) {
    // The server chooses the boundary, and with it the length of a multipart body. The parts are compared below.
    if (expectedParts !== null && actualParts !== null && (name === 'content-type' || name === 'content-length'))
      continue;
    const [a, b] = [expected, actual].map(
      (response) => field(response, name)?.replace(/boundary=.*/, 'boundary=…') ?? 'absent',
    );
    if (a !== b) findings.push([`${name}:`, `${a} | ${b}`]);
  }
  if (expectedParts === null && actualParts === null) {
    if (!expected.body.equals(actual.body))
      findings.push(['body', `${expected.body.length} bytes | ${actual.body.length} bytes`]);
  } else if (expectedParts === null || actualParts === null || !sameParts(expectedParts, actualParts)) {
    const texts = [expectedParts, actualParts].map((list) => (list === null ? 'no parts' : rangesText(list)));
    findings.push(['parts', texts.join(' | ')]);
  }
  return findings;
}

/** Null if the body is not multipart, or malformed: then its bytes are compared as they are. */
export function partsOf(response: HttpResponse): BodyPart[] | null {
  if (!(field(response, 'content-type') ?? '').startsWith('multipart/byteranges') || response.body.length === 0)
    return null;
  // nginx sends an empty preamble, which RFC 2046 5.1.1 allows.
  const preamble = response.body.subarray(0, 2).toString('latin1') === '\r\n' ? 2 : 0;
  try {
    return multipartParts({ ...response, body: response.body.subarray(preamble) });
  } catch {
    return null;
  }
}

const sameParts = (a: readonly BodyPart[], b: readonly BodyPart[]): boolean =>
  rangesText(a) === rangesText(b) &&
  a.every((part, at) => part.contentType === b[at]!.contentType && part.body.equals(b[at]!.body));

const rangesText = (list: readonly BodyPart[]): string =>
  list.map(({ first, last, total }) => `${first}-${last}/${total}`).join(',');

/** What is wrong with a response by itself, whatever the other side sent. */
function violations(request: Request, { response, open }: Observation & { kind: 'response' }): string[] {
  const found: string[] = [];
  const announcesClose = /\bclose\b/i.test(field(response, 'connection') ?? '');
  if (announcesClose === open) found.push(open ? 'stays open after Connection: close' : UNANNOUNCED_CLOSE);
  if (!response.complete) found.push('the body is short');
  const names = response.fields.map(([name]) => name).filter((name) => name !== 'set-cookie');
  for (const name of new Set(names.filter((one, at) => names.indexOf(one) !== at))) found.push(`${name} is sent twice`);
  if (request.asset !== null && request.method === 'GET') found.push(...wrongBytes(response, request.asset.body));
  return found;
}

export const UNANNOUNCED_CLOSE = 'closes without Connection: close';

function wrongBytes(response: HttpResponse, asset: Buffer): string[] {
  const { status, body } = response;
  if (status === 200 && !body.equals(asset)) return [`a 200 of ${body.length} bytes that differ from the asset`];
  if (status === 416 && field(response, 'content-range') !== `bytes */${asset.length}`)
    return ['a 416 without the length'];
  if (status !== 206) return [];
  try {
    const parts = partsOf(response) ?? [{ ...parseContentRange(field(response, 'content-range')), body }];
    return parts
      .filter(
        ({ first, last, total, body: bytes }) =>
          total !== asset.length || !bytes.equals(asset.subarray(first, last + 1)),
      )
      .map(({ first, last, total }) => `bytes ${first}-${last}/${total} that differ from the asset`);
  } catch (error) {
    return [(error as Error).message];
  }
}
