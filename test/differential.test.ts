// The same requests to nginx and to appliances before it: whatever differs is in the table of decisions/0017, or is a defect.
// `test/fuzz.sh` runs this with many more requests.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { packageRoot } from '../runtime/paths.ts';
import { differences } from './differential/compare.ts';
import { fuzz, story, type Outcome } from './differential/fuzz.ts';
import { makeCase, type Request } from './differential/requests.ts';
import { ruleOf, RULES, table } from './differential/rules.ts';
import { Stage } from './differential/stage.ts';
import type { Seen } from './differential/transcript.ts';
import { needsTool } from './tools.ts';

const setting = (name: string, fallback: number): number => Number(process.env[`LARDER_FUZZ_${name}`] ?? fallback);
const REQUESTS = setting('REQUESTS', 2_000);
const SEED = setting('SEED', 9_110);
const FIRST_CASE = setting('CASE', 0);
/** From so many on, a rule that was not needed is a rule too many. */
const REQUESTS_FOR_ALL_RULES = 100_000;
const MS_PER_REQUEST_MAX = 100;

const nginx = needsTool('nginx');
const say = (line: string): void => void process.stderr.write(`${line}\n`);

describe.skipIf(nginx === null)('an appliance and nginx', () => {
  let stage: Stage;
  let outcome: Outcome;

  beforeAll(
    async () => {
      stage = await Stage.start(nginx!);
      const progress = REQUESTS > 2_000 ? { progress: say } : {};
      outcome = await fuzz({ stage, seed: SEED, requests: REQUESTS, firstCase: FIRST_CASE, ...progress });
      if (REQUESTS > 2_000) report(outcome);
    },
    60_000 + REQUESTS * MS_PER_REQUEST_MAX,
  );

  afterAll(() => stage?.close());

  test(`answer ${REQUESTS} requests alike, but for what the table explains`, () => {
    const stories = outcome.unexplained.map((one) => story(one, SEED));
    expect(stories, `\n${stories.join('\n\n')}\n\n${stories.length > 0 ? stage.logs : ''}\n`).toEqual([]);
    expect(outcome.requests).toBeGreaterThanOrEqual(REQUESTS);
  });

  test.skipIf(REQUESTS < 2_000)('were compared cold and warm', () => {
    const { cold, warm, of } = outcome.hits;
    expect(cold / of).toBeLessThan(0.15);
    expect(warm / of).toBeGreaterThan(0.4);
  });

  test.skipIf(REQUESTS < REQUESTS_FOR_ALL_RULES)('need every rule', () => {
    const idle = [...outcome.uses]
      .filter(([, times]) => times === 0)
      .map(([{ asked, larder }]) => `${asked}: ${larder}`);
    expect(idle).toEqual([]);
  });
});

function report({ seed, requests, cases, seconds, uses, unexplained, hits }: Outcome): void {
  for (const [{ asked, larder }, times] of uses) say(`${String(times).padStart(8)}  ${asked}: ${larder}`);
  const rate = Math.round(requests / seconds);
  say(
    `seed ${seed}: ${requests} requests in ${cases} connections, each three times, ${Math.round(seconds)} s, ${rate}/s`,
  );
  say(
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
  const seen = (status: number, fields: Record<string, string>, bytes: Buffer, open = true): Seen => ({
    ...{ kind: 'answer', open },
    answer: { version: 'HTTP/1.1', status, fields: Object.entries(fields), body: bytes, complete: true },
  });
  const good = seen(200, whole, body);
  const goodPart = seen(206, part, body.subarray(2, 5));
  const without = (name: keyof typeof whole): Record<string, string> =>
    Object.fromEntries(Object.entries(whole).filter(([key]) => key !== name));
  const found = (asked: Request, theirs: Seen, ours: Seen): string[] =>
    differences({ between: 'nginx-warm', case: { ...makeCase(1, 1), requests: [asked] }, request: asked, theirs, ours })
      .filter((difference) => ruleOf(difference) === undefined)
      .map(({ facet }) => facet);

  test('finds nothing in answers that are alike', () => {
    expect(found(request, good, good)).toEqual([]);
    expect(found(ranged, goodPart, goodPart)).toEqual([]);
  });

  test.each<readonly [string, Request, Seen, Seen, string[]]>([
    ['another status', request, good, seen(404, {}, Buffer.alloc(0)), ['status']],
    ['the whole for a range', ranged, goodPart, good, ['status']],
    ['a wrong byte', request, good, seen(200, whole, Buffer.from('0123456780')), ['truth', 'body']],
    ['a byte too few', request, good, seen(200, whole, body.subarray(1)), ['truth', 'body']],
    ['a range one off', ranged, goodPart, seen(206, part, body.subarray(3, 6)), ['truth', 'body']],
    ['no entity tag', request, good, seen(200, without('etag'), body), ['etag:']],
    ['another entity tag', request, good, seen(200, { ...whole, etag: '"b"' }, body), ['etag:']],
    ['no date of change', request, good, seen(200, without('last-modified'), body), ['last-modified:']],
    ['no word of ranges', request, good, seen(200, without('accept-ranges'), body), ['accept-ranges:']],
    ['another type', request, good, seen(200, { ...whole, 'content-type': 'z' }, body), ['content-type:']],
    ['a hang-up', request, good, seen(200, { ...whole, connection: 'close' }, body, false), ['persistence']],
    ['a hang-up without a word', request, good, seen(200, whole, body, false), ['truth', 'persistence']],
    ['a word of it that is not kept', request, good, seen(200, { ...whole, connection: 'close' }, body), ['truth']],
    ['no answer at all', request, good, { kind: 'none' }, ['answer']],
    ['bytes that are no answer', request, good, { kind: 'broken', why: 'x' }, ['truth', 'answer']],
  ])('finds %s, and no rule explains it', (_, asked, theirs, ours, facets) => {
    expect(found(asked, theirs, ours)).toEqual(facets);
  });

  test('is of the same cases for the same seed', () => {
    expect(makeCase(7, 11)).toEqual(makeCase(7, 11));
    expect(makeCase(7, 11)).not.toEqual(makeCase(8, 11));
  });
});

test('the table of differences is printed in decisions/0017; `npx vitest run test/differential.test.ts -u` prints it anew', async () => {
  const file = join(packageRoot, 'decisions/0017-differences-from-nginx.md');
  const [before, after] = readFileSync(file, 'utf8').split(
    /(?<=<!-- prettier-ignore-start -->\n)[^]*(?=<!-- prettier-ignore-end -->)/,
  );
  await expect(`${before}\n${table()}\n\n${after}`).toMatchFileSnapshot(file);
  expect(new Set(RULES.map(({ asked, larder }) => `${asked} ${larder}`)).size).toBe(RULES.length);
});
