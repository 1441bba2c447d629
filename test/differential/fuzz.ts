// Runs cases, each once at nginx and twice at an appliance, cold and warm. Every difference is explained by a rule, or is
// reduced to the smallest case that still shows it and reported.

import { field, type HttpResponse } from '../../appliance/test/http-client.ts';
import { systemClock } from '../../runtime/clock.ts';
import { differences, type Difference } from './compare.ts';
import { observeCase, type Observation } from './observe.ts';
import { makeCase, requestText, type Case } from './requests.ts';
import { ruleOf, RULES } from './rules.ts';
import type { Servers } from './servers.ts';
import type { Rule } from './view.ts';

const CONCURRENT_CASES = 8;
/** Kinds of unexplained differences after which the run is given up. */
const UNEXPLAINED_MAX = 20;
/** Attempts to make one case smaller. */
const REDUCTIONS_MAX = 100;
const REPORT_EVERY_MS = 5_000;

export interface FuzzResult {
  readonly seed: number;
  /** Requests that all three answered or refused. */
  readonly requests: number;
  readonly cases: number;
  readonly seconds: number;
  /** How often each rule explained a difference. */
  readonly uses: ReadonlyMap<Rule, number>;
  readonly unexplained: readonly Unexplained[];
  /** Successful responses of the appliance (`of`), and how many of them were hits, cold and warm. */
  readonly hits: { readonly cold: number; readonly warm: number; readonly of: number };
}

export interface Unexplained {
  readonly difference: Difference;
  readonly times: number;
}

export interface FuzzSpec {
  readonly servers: Servers;
  readonly seed: number;
  readonly requests: number;
  /** Number of the first case, to repeat one that failed. */
  readonly firstCase?: number;
  readonly progress?: (line: string) => void;
}

export async function fuzz(spec: FuzzSpec): Promise<FuzzResult> {
  const run = new FuzzRun(spec);
  await Promise.all(Array.from({ length: CONCURRENT_CASES }, () => run.work()));
  return run.result();
}

class FuzzRun {
  readonly #spec: FuzzSpec;
  readonly #startedMs = systemClock.monotonic();
  readonly #uses = new Map<Rule, number>(RULES.map((rule) => [rule, 0]));
  readonly #unexplained = new Map<string, Unexplained>();
  readonly #hits = { cold: 0, warm: 0, of: 0 };
  #nextCase: number;
  #requests = 0;
  #folders = 0;
  #reportedMs = 0;

  constructor(spec: FuzzSpec) {
    this.#spec = spec;
    this.#nextCase = spec.firstCase ?? 0;
  }

  async work(): Promise<void> {
    while (this.#requests < this.#spec.requests && this.#unexplained.size < UNEXPLAINED_MAX) {
      const testCase = makeCase(this.#spec.seed, this.#nextCase++);
      for (const difference of await this.#runCase(testCase, this.#countRequest)) {
        const rule = ruleOf(difference);
        if (rule === undefined) await this.#record(difference);
        else this.#uses.set(rule, this.#uses.get(rule)! + 1);
      }
      this.#report();
    }
  }

  result(): FuzzResult {
    return {
      seed: this.#spec.seed,
      requests: this.#requests,
      cases: this.#nextCase - (this.#spec.firstCase ?? 0),
      seconds: (systemClock.monotonic() - this.#startedMs) / 1000,
      uses: this.#uses,
      unexplained: [...this.#unexplained.values()],
      hits: this.#hits,
    };
  }

  /** `count` is called for each request that all three servers answered or refused. */
  async #runCase(
    testCase: Case,
    count: (cold: Observation, warm: Observation) => void = () => undefined,
  ): Promise<Difference[]> {
    const { servers } = this.#spec;
    const prefix = `/c${++this.#folders}`;
    const port = servers.portOf(testCase.mode);
    const fromNginx = await observeCase(servers.nginxPort, testCase, prefix);
    const fromCold = await observeCase(port, testCase, prefix);
    const fromWarm = await observeCase(port, testCase, prefix);
    const found: Difference[] = [];
    for (const [at, request] of testCase.requests.entries()) {
      const [nginx, cold, warm] = [fromNginx[at], fromCold[at], fromWarm[at]];
      if (nginx === undefined || cold === undefined || warm === undefined) break;
      const common = { case: testCase, request };
      found.push(
        ...differences({ ...common, between: 'nginx-cold', expected: nginx, actual: cold }),
        ...differences({ ...common, between: 'nginx-warm', expected: nginx, actual: warm }),
        ...differences({ ...common, between: 'cold-warm', expected: cold, actual: warm }),
      );
      count(cold, warm);
      // A server that has closed sends no more responses; that it has closed is a difference by itself.
      if (![nginx, cold, warm].every((each) => each.kind === 'response' && each.open)) break;
    }
    return found;
  }

  readonly #countRequest = (cold: Observation, warm: Observation): void => {
    this.#requests += 1;
    if (cold.kind !== 'response' || cold.response.status >= 300) return;
    this.#hits.of += 1;
    if (isHit(cold.response)) this.#hits.cold += 1;
    if (warm.kind === 'response' && isHit(warm.response)) this.#hits.warm += 1;
  };

  async #record(difference: Difference): Promise<void> {
    const kind = kindOf(difference);
    const known = this.#unexplained.get(kind);
    this.#unexplained.set(kind, { difference, ...known, times: (known?.times ?? 0) + 1 });
    if (known !== undefined) return;
    const smallest = await this.#reduce(difference);
    this.#unexplained.set(kind, { difference: smallest, times: this.#unexplained.get(kind)!.times });
  }

  /** Leaves out requests, field lines and oddities as long as a difference of the same kind remains. */
  async #reduce(difference: Difference): Promise<Difference> {
    let best = difference;
    // A case with a missing response waits for its deadline in each attempt, so it is not reduced.
    const waits = [difference.expected, difference.actual].some(({ kind }) => kind === 'broken');
    let attempts = waits ? REDUCTIONS_MAX : 0;
    for (let reduced = true; reduced;) {
      reduced = false;
      for (const candidate of reductions(best.case)) {
        if (++attempts > REDUCTIONS_MAX) return best;
        const found = (await this.#runCase(candidate)).find(
          (one) => kindOf(one) === kindOf(difference) && ruleOf(one) === undefined,
        );
        if (found === undefined) continue;
        best = found;
        reduced = true;
        break;
      }
    }
    return best;
  }

  #report(): void {
    const { progress, requests } = this.#spec;
    const nowMs = systemClock.monotonic();
    if (progress === undefined || nowMs - this.#reportedMs < REPORT_EVERY_MS) return;
    this.#reportedMs = nowMs;
    const seconds = (nowMs - this.#startedMs) / 1000;
    progress(
      `${this.#requests} of ${requests} requests, ${Math.round(this.#requests / seconds)}/s, ${this.#unexplained.size} kinds unexplained`,
    );
  }
}

/** Differences of one kind presumably have one cause. */
function kindOf({ aspect, between, case: { mode }, expected, actual }: Difference): string {
  const status = (observation: Observation): string =>
    observation.kind === 'response' ? String(observation.response.status) : observation.kind;
  return [aspect, between, mode, status(expected), status(actual)].join(' ');
}

const isHit = (response: HttpResponse): boolean => (field(response, 'cache-status') ?? '').includes('larder; hit');

/** The case with one thing less, for each thing that it may do without. */
function* reductions(testCase: Case): Generator<Case> {
  const { requests } = testCase;
  for (const at of requests.keys()) if (requests.length > 1) yield { ...testCase, requests: requests.toSpliced(at, 1) };
  if (testCase.pipelined) yield { ...testCase, pipelined: false };
  for (const [at, request] of requests.entries()) {
    const changed = (change: Partial<typeof request>): Case => ({
      ...testCase,
      requests: requests.with(at, { ...request, ...change }),
    });
    for (const line of request.lines.keys()) yield changed({ lines: request.lines.toSpliced(line, 1) });
    if (request.before !== '') yield changed({ before: '' });
    if (request.eol !== '\r\n') yield changed({ eol: '\r\n' });
    if (request.version !== 'HTTP/1.1') yield changed({ version: 'HTTP/1.1' });
    if (request.method !== 'GET') yield changed({ method: 'GET' });
  }
}

/** All that a person needs to find out which of the two is right. */
export function describeUnexplained({ difference, times }: Unexplained, seed: number): string {
  const { aspect, between, case: testCase, request, detail, expected, actual } = difference;
  const { number, mode, pipelined, requests } = testCase;
  return [
    `${aspect} ${between} (${mode}), ${times} times: ${detail}`,
    `  seed ${seed}, case ${number}${pipelined ? ', pipelined' : ''}, request ${requests.indexOf(request) + 1}`,
    ...requests.map((one) => `  > ${JSON.stringify(requestText(one, '/cN').slice(0, 600))}`),
    `  < ${observationText(expected)}`,
    `  < ${observationText(actual)}`,
  ].join('\n');
}

function observationText(observation: Observation): string {
  if (observation.kind !== 'response')
    return observation.kind === 'closed' ? 'closed' : `broken: ${observation.reason}`;
  const { status, fields, body } = observation.response;
  const lines = fields.map(([name, value]) => `${name}: ${value}`).join('; ');
  const start = JSON.stringify(body.subarray(0, 60).toString('latin1'));
  return `${status} ${observation.open ? 'open' : 'closed'} ${lines}; ${body.length} bytes: ${start}`;
}
