// What differs between two answers to the same request, one entry for each thing that a client can tell: status, every
// field, bytes, parts, and whether the connection goes on. Answers of different status are not compared further, but what
// an appliance sends is always held against the file.

import { contentRange, field, parts, type Answer, type Part } from '../../appliance/test/wire.ts';
import type { Case, Request } from './requests.ts';
import type { Seen } from './transcript.ts';

/** Who is held against whom: nginx, an appliance that never saw the asset, the same one again. */
export type Between = 'nginx-cold' | 'nginx-warm' | 'cold-warm';

export interface Difference {
  /** `status`, `body`, `parts`, `answer`, `persistence`, `truth`, or a field's name and a colon. */
  readonly facet: string;
  readonly between: Between;
  readonly case: Case;
  readonly request: Request;
  readonly theirs: Seen;
  readonly ours: Seen;
  /** For people: of the one | of the other. */
  readonly detail: string;
}

export function differences(pair: Omit<Difference, 'facet' | 'detail'>): Difference[] {
  const { theirs, ours, request } = pair;
  const found: [facet: string, detail: string][] = [];
  if (ours.kind === 'broken') found.push(['truth', ours.why]);
  if (ours.kind === 'answer') for (const why of untruths(request, ours)) found.push(['truth', why]);
  // Who hangs up with requests unread takes back what is on its way: of an answer broken off so, nobody knows the rest.
  if (theirs.kind !== 'answer' || theirs.answer.complete) found.push(...between(theirs, ours));
  return found.map(([facet, detail]) => ({ ...pair, facet, detail }));
}

function between(theirs: Seen, ours: Seen): [facet: string, detail: string][] {
  if (theirs.kind !== 'answer' || ours.kind !== 'answer')
    return theirs.kind === ours.kind ? [] : [['answer', `${told(theirs)} | ${told(ours)}`]];
  const [from, to] = [theirs.answer.status, ours.answer.status];
  const found: [string, string][] =
    from === to ? contents(theirs.answer, ours.answer) : [['status', `${from} | ${to}`]];
  if (theirs.open !== ours.open) found.push(['persistence', `${goesOn(theirs.open)} | ${goesOn(ours.open)}`]);
  return found;
}

const told = (seen: Seen): string =>
  seen.kind === 'answer' ? String(seen.answer.status) : seen.kind === 'none' ? 'hung up' : `broken: ${seen.why}`;
const goesOn = (open: boolean): string => (open ? 'stays open' : 'closes');

/** Of two answers with one status. */
function contents(theirs: Answer, ours: Answer): [string, string][] {
  const found: [string, string][] = [];
  const [left, right] = [partsOf(theirs), partsOf(ours)];
  for (const name of new Set([...theirs.fields, ...ours.fields].map(([key]) => key))) {
    // Of several parts the boundary is the server's to choose, and with it their length; parts are compared below.
    if (left !== null && right !== null && (name === 'content-type' || name === 'content-length')) continue;
    const [a, b] = [theirs, ours].map(
      (answer) => field(answer, name)?.replace(/boundary=.*/, 'boundary=…') ?? 'absent',
    );
    if (a !== b) found.push([`${name}:`, `${a} | ${b}`]);
  }
  if (left === null && right === null) {
    if (!theirs.body.equals(ours.body)) found.push(['body', `${theirs.body.length} bytes | ${ours.body.length} bytes`]);
  } else if (left === null || right === null || !sameParts(left, right))
    found.push(['parts', [left, right].map((list) => (list === null ? 'no parts' : listed(list))).join(' | ')]);
  return found;
}

/** Null where it is not multipart, or broken: then its bytes are compared as they are. */
export function partsOf(answer: Answer): Part[] | null {
  if (!(field(answer, 'content-type') ?? '').startsWith('multipart/byteranges') || answer.body.length === 0)
    return null;
  // nginx opens with an empty preamble, which RFC 2046 5.1.1 allows.
  const preamble = answer.body.subarray(0, 2).toString('latin1') === '\r\n' ? 2 : 0;
  try {
    return parts({ ...answer, body: answer.body.subarray(preamble) });
  } catch {
    return null;
  }
}

const sameParts = (a: readonly Part[], b: readonly Part[]): boolean =>
  listed(a) === listed(b) &&
  a.every((part, at) => part.contentType === b[at]!.contentType && part.body.equals(b[at]!.body));

const listed = (list: readonly Part[]): string =>
  list.map(({ first, last, total }) => `${first}-${last}/${total}`).join(',');

/** What is wrong with an answer whatever anybody else says. */
function untruths(request: Request, { answer, open }: Seen & { kind: 'answer' }): string[] {
  const wrong: string[] = [];
  const saysClose = /\bclose\b/i.test(field(answer, 'connection') ?? '');
  if (saysClose === open) wrong.push(open ? 'stays open though it said close' : 'closes without a word');
  if (!answer.complete) wrong.push('the body is short');
  const names = answer.fields.map(([name]) => name).filter((name) => name !== 'set-cookie');
  for (const name of new Set(names.filter((one, at) => names.indexOf(one) !== at))) wrong.push(`${name} comes twice`);
  if (request.asset !== null && request.method === 'GET') wrong.push(...wrongBytes(answer, request.asset.body));
  return wrong;
}

function wrongBytes(answer: Answer, whole: Buffer): string[] {
  const { status, body } = answer;
  if (status === 200 && !body.equals(whole)) return [`a 200 of ${body.length} bytes that are not the asset's`];
  if (status === 416 && field(answer, 'content-range') !== `bytes */${whole.length}`)
    return ['a 416 without the length'];
  if (status !== 206) return [];
  try {
    const found = partsOf(answer) ?? [{ ...contentRange(field(answer, 'content-range')), body }];
    return found
      .filter(
        ({ first, last, total, body: bytes }) =>
          total !== whole.length || !bytes.equals(whole.subarray(first, last + 1)),
      )
      .map(({ first, last, total }) => `bytes ${first}-${last}/${total} that are not the asset's`);
  } catch (error) {
    return [(error as Error).message];
  }
}
