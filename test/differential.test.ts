// The same random requests to nginx and to appliances in front of it: every difference is in the table of decisions/0017, or is a
// defect. `test/fuzz.sh` runs many more requests.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { packageRoot } from '../runtime/paths.ts';
import { differences } from './differential/compare.ts';
import { describeUnexplained, fuzz, type FuzzResult } from './differential/fuzz.ts';
import { makeCase, type Request } from './differential/requests.ts';
import { ruleOf, RULES, rulesTable } from './differential/rules.ts';
import { Servers } from './differential/servers.ts';
import type { Observation } from './differential/observe.ts';
import { needsTool } from './tools.ts';

const setting = (name: string, fallback: number): number => Number(process.env[`LARDER_FUZZ_${name}`] ?? fallback);
const REQUESTS = setting('REQUESTS', 2_000);
const SEED = setting('SEED', 9_110);
const FIRST_CASE = setting('CASE', 0);
/** In a run of at least this many requests every rule must have been needed. */
const REQUESTS_FOR_ALL_RULES = 100_000;
const MS_PER_REQUEST_MAX = 100;

const nginx = needsTool('nginx');
const print = (line: string): void => void process.stderr.write(`${line}\n`);

describe.skipIf(nginx === null)('an appliance and nginx', () => {
  let servers: Servers;
  let result: FuzzResult;

  beforeAll(
    async () => {
      servers = await Servers.start(nginx!);
      const progress = REQUESTS > 2_000 ? { progress: print } : {};
      result = await fuzz({ servers, seed: SEED, requests: REQUESTS, firstCase: FIRST_CASE, ...progress });
      if (REQUESTS > 2_000) report(result);
    },
    60_000 + REQUESTS * MS_PER_REQUEST_MAX,
  );

  afterAll(() => servers?.close());

  test(`answer ${REQUESTS} requests alike, except for differences that the table explains`, () => {
    const unexplained = result.unexplained.map((one) => describeUnexplained(one, SEED));
    const logs = unexplained.length > 0 ? servers.logs : '';
    expect(unexplained, `\n${unexplained.join('\n\n')}\n\n${logs}\n`).toEqual([]);
    expect(result.requests).toBeGreaterThanOrEqual(REQUESTS);
  });

  test.skipIf(REQUESTS < 2_000)('were compared with cold and with stored assets', () => {
    const { cold, warm, of } = result.hits;
    expect(cold / of).toBeLessThan(0.15);
    expect(warm / of).toBeGreaterThan(0.4);
  });

  test.skipIf(REQUESTS < REQUESTS_FOR_ALL_RULES)('need every rule of the table', () => {
    const unused = [...result.uses]
      .filter(([, times]) => times === 0)
      .map(([{ request, larder }]) => `${request}: ${larder}`);
    expect(unused).toEqual([]);
  });
});

function report({ seed, requests, cases, seconds, uses, unexplained, hits }: FuzzResult): void {
  for (const [{ request, larder }, times] of uses) print(`${String(times).padStart(8)}  ${request}: ${larder}`);
  const rate = Math.round(requests / seconds);
  print(
    `seed ${seed}: ${requests} requests in ${cases} connections, each three times, ${Math.round(seconds)} s, ${rate}/s`,
  );
  print(
    `hits ${hits.cold} cold and ${hits.warm} warm of ${hits.of}; ${unexplained.length} kinds of differences unexplained`,
  );
}

describe('the comparison', () => {
  const body = Buffer.from('0123456789');
  const asset = { name: 'ten', body, etag: '"a"', modifiedMs: 0 };
  const request: Request = {
    ...{
      before: '',
      method: 'GET',
      target: '/ten',
      version: 'HTTP/1.1',
      lines: ['Host: x'],
      eol: '\r\n',
      body: '',
      asset,
    },
  };
  const ranged = { ...request, lines: ['Host: x', 'Range: bytes=2-4'] };
  const whole = {
    'content-length': '10',
    etag: '"a"',
    'last-modified': 'x',
    'accept-ranges': 'bytes',
    'content-type': 'y',
  };
  const part = { ...whole, 'content-length': '3', 'content-range': 'bytes 2-4/10' };
  const observation = (status: number, fields: Record<string, string>, bytes: Buffer, open = true): Observation => ({
    ...{ kind: 'response', open },
    response: { version: 'HTTP/1.1', status, fields: Object.entries(fields), body: bytes, complete: true },
  });
  const good = observation(200, whole, body);
  const goodPart = observation(206, part, body.subarray(2, 5));
  const without = (name: keyof typeof whole): Record<string, string> =>
    Object.fromEntries(Object.entries(whole).filter(([key]) => key !== name));
  const unexplainedAspects = (compared: Request, expected: Observation, actual: Observation): string[] =>
    differences({
      between: 'nginx-warm',
      case: { ...makeCase(1, 1), requests: [compared] },
      request: compared,
      expected,
      actual,
    })
      .filter((difference) => ruleOf(difference) === undefined)
      .map(({ aspect }) => aspect);

  test('finds nothing in equal responses', () => {
    expect(unexplainedAspects(request, good, good)).toEqual([]);
    expect(unexplainedAspects(ranged, goodPart, goodPart)).toEqual([]);
  });

  test.each<readonly [string, Request, Observation, Observation, string[]]>([
    ['another status', request, good, observation(404, {}, Buffer.alloc(0)), ['status']],
    ['the whole asset for a range', ranged, goodPart, good, ['status']],
    ['a wrong byte', request, good, observation(200, whole, Buffer.from('0123456780')), ['correctness', 'body']],
    ['a missing byte', request, good, observation(200, whole, body.subarray(1)), ['correctness', 'body']],
    ['a range shifted by one', ranged, goodPart, observation(206, part, body.subarray(3, 6)), ['correctness', 'body']],
    ['no entity tag', request, good, observation(200, without('etag'), body), ['etag:']],
    ['another entity tag', request, good, observation(200, { ...whole, etag: '"b"' }, body), ['etag:']],
    ['no Last-Modified', request, good, observation(200, without('last-modified'), body), ['last-modified:']],
    ['no Accept-Ranges', request, good, observation(200, without('accept-ranges'), body), ['accept-ranges:']],
    [
      'another content type',
      request,
      good,
      observation(200, { ...whole, 'content-type': 'z' }, body),
      ['content-type:'],
    ],
    [
      'an announced close',
      request,
      good,
      observation(200, { ...whole, connection: 'close' }, body, false),
      ['persistence'],
    ],
    ['an unannounced close', request, good, observation(200, whole, body, false), ['correctness', 'persistence']],
    [
      'an announced close that does not happen',
      request,
      good,
      observation(200, { ...whole, connection: 'close' }, body),
      ['correctness'],
    ],
    ['no response', request, good, { kind: 'closed' }, ['response']],
    ['bytes that are not a response', request, good, { kind: 'broken', reason: 'x' }, ['correctness', 'response']],
  ])('finds %s, and no rule explains it', (_, compared, expected, actual, aspects) => {
    expect(unexplainedAspects(compared, expected, actual)).toEqual(aspects);
  });

  test('makes the same cases from the same seed', () => {
    expect(makeCase(7, 11)).toEqual(makeCase(7, 11));
    expect(makeCase(7, 11)).not.toEqual(makeCase(8, 11));
  });
});

test('decisions/0017 has the current table of differences; `npx vitest run test/differential.test.ts -u` updates it', async () => {
  const file = join(packageRoot, 'decisions/0017-differences-from-nginx.md');
  const [before, after] = readFileSync(file, 'utf8').split(
    /(?<=<!-- prettier-ignore-start -->\n)[^]*(?=<!-- prettier-ignore-end -->)/,
  );
  await expect(`${before}\n${rulesTable()}\n\n${after}`).toMatchFileSnapshot(file);
  expect(new Set(RULES.map(({ request, larder }) => `${request} ${larder}`)).size).toBe(RULES.length);
});
