// Runs cases: each once at nginx and twice at an appliance, cold and warm, and explains every difference by a rule or keeps
// it, made as small as it still differs.

import { field, type Answer } from '../../appliance/test/wire.ts';
import { differences, type Difference } from './compare.ts';
import { makeCase, requestText, type Case } from './requests.ts';
import { ruleOf, RULES } from './rules.ts';
import type { Stage } from './stage.ts';
import { transcribe, type Seen } from './transcript.ts';
import type { Rule } from './view.ts';

/** Cases under way at once. */
const ABREAST = 8;
/** Kinds of unexplained differences before the run is given up, and tries to make one smaller. */
const UNEXPLAINED_MAX = 20;
const SHRINKS_MAX = 100;
const REPORT_EVERY_MS = 5_000;

export interface Outcome {
  readonly seed: number;
  /** Requests that all three answered or refused. */
  readonly requests: number;
  readonly cases: number;
  readonly seconds: number;
  readonly uses: ReadonlyMap<Rule, number>;
  readonly unexplained: readonly Unexplained[];
  /** Of the answers to GETs that an appliance gave from its store: cold, warm. */
  readonly hits: { readonly cold: number; readonly warm: number; readonly of: number };
}

export interface Unexplained {
  readonly difference: Difference;
  readonly times: number;
}

export interface FuzzSpec {
  readonly stage: Stage;
  readonly seed: number;
  readonly requests: number;
  /** To see a case again, its number. */
  readonly firstCase?: number;
  readonly progress?: (line: string) => void;
}

export async function fuzz(spec: FuzzSpec): Promise<Outcome> {
  const run = new Run(spec);
  await Promise.all(Array.from({ length: ABREAST }, () => run.work()));
  return run.outcome();
}

class Run {
  readonly #spec: FuzzSpec;
  readonly #started = performance.now();
  readonly #uses = new Map<Rule, number>(RULES.map((rule) => [rule, 0]));
  readonly #unexplained = new Map<string, Unexplained>();
  readonly #hits = { cold: 0, warm: 0, of: 0 };
  #next: number;
  #requests = 0;
  #folders = 0;
  #saidAt = 0;

  constructor(spec: FuzzSpec) {
    this.#spec = spec;
    this.#next = spec.firstCase ?? 0;
  }

  async work(): Promise<void> {
    while (this.#requests < this.#spec.requests && this.#unexplained.size < UNEXPLAINED_MAX) {
      const what = makeCase(this.#spec.seed, this.#next++);
      const found = await this.#compare(what, true);
      for (const difference of found) {
        const rule = ruleOf(difference);
        if (rule === undefined) await this.#keep(difference);
        else this.#uses.set(rule, this.#uses.get(rule)! + 1);
      }
      this.#report();
    }
  }

  outcome(): Outcome {
    return {
      seed: this.#spec.seed,
      requests: this.#requests,
      cases: this.#next - (this.#spec.firstCase ?? 0),
      seconds: (performance.now() - this.#started) / 1000,
      uses: this.#uses,
      unexplained: [...this.#unexplained.values()],
      hits: this.#hits,
    };
  }

  async #compare(what: Case, counted: boolean): Promise<Difference[]> {
    const { stage } = this.#spec;
    const prefix = `/c${++this.#folders}`;
    const port = stage.portOf(what.manner);
    const nginx = await transcribe(stage.nginxPort, what, prefix);
    const cold = await transcribe(port, what, prefix);
    const warm = await transcribe(port, what, prefix);
    const found: Difference[] = [];
    for (const [at, request] of what.requests.entries()) {
      const [a, b, c] = [nginx[at], cold[at], warm[at]];
      if (a === undefined || b === undefined || c === undefined) break;
      const common = { case: what, request };
      found.push(
        ...differences({ ...common, between: 'nginx-cold', theirs: a, ours: b }),
        ...differences({ ...common, between: 'nginx-warm', theirs: a, ours: c }),
        ...differences({ ...common, between: 'cold-warm', theirs: b, ours: c }),
      );
      if (counted) this.#count(b, c);
      // Who has hung up has no more answers; that he has is told above.
      if (![a, b, c].every((seen) => seen.kind === 'answer' && seen.open)) break;
    }
    return found;
  }

  #count(cold: Seen, warm: Seen): void {
    this.#requests += 1;
    const hit = (seen: Seen): number => (seen.kind === 'answer' && isHit(seen.answer) ? 1 : 0);
    if (cold.kind !== 'answer' || cold.answer.status >= 300) return;
    this.#hits.of += 1;
    this.#hits.cold += hit(cold);
    this.#hits.warm += hit(warm);
  }

  async #keep(difference: Difference): Promise<void> {
    const kind = kindOf(difference);
    const known = this.#unexplained.get(kind);
    this.#unexplained.set(kind, { difference, ...known, times: (known?.times ?? 0) + 1 });
    if (known !== undefined) return;
    const least = await this.#shrunk(difference);
    this.#unexplained.set(kind, { difference: least, times: this.#unexplained.get(kind)!.times });
  }

  /** Leaves out requests, lines and oddities as long as a difference of that kind stays. */
  async #shrunk(difference: Difference): Promise<Difference> {
    let best = difference;
    // Who waits for an answer that does not come waits in each try.
    const silent = [difference.theirs, difference.ours].some(({ kind }) => kind === 'broken');
    let tries = silent ? SHRINKS_MAX : 0;
    for (let smaller = true; smaller;) {
      smaller = false;
      for (const candidate of lesser(best.case)) {
        if (++tries > SHRINKS_MAX) return best;
        const found = (await this.#compare(candidate, false)).find(
          (one) => kindOf(one) === kindOf(difference) && ruleOf(one) === undefined,
        );
        if (found === undefined) continue;
        best = found;
        smaller = true;
        break;
      }
    }
    return best;
  }

  #report(): void {
    const { progress, requests } = this.#spec;
    const now = performance.now();
    if (progress === undefined || now - this.#saidAt < REPORT_EVERY_MS) return;
    this.#saidAt = now;
    const seconds = (now - this.#started) / 1000;
    progress(
      `${this.#requests} of ${requests} requests, ${Math.round(this.#requests / seconds)}/s, ${this.#unexplained.size} kinds unexplained`,
    );
  }
}

/** Differences of one kind have, as far as one can tell, one cause. */
function kindOf({ facet, between, case: { manner }, theirs, ours }: Difference): string {
  const status = (seen: Seen): string => (seen.kind === 'answer' ? String(seen.answer.status) : seen.kind);
  return [facet, between, manner, status(theirs), status(ours)].join(' ');
}

const isHit = (answer: Answer): boolean => (field(answer, 'cache-status') ?? '').includes('larder; hit');

/** The case with one thing less. */
function* lesser(what: Case): Generator<Case> {
  const { requests } = what;
  for (const at of requests.keys()) if (requests.length > 1) yield { ...what, requests: requests.toSpliced(at, 1) };
  if (what.pipelined) yield { ...what, pipelined: false };
  for (const [at, request] of requests.entries()) {
    const changed = (change: Partial<typeof request>): Case => ({
      ...what,
      requests: requests.with(at, { ...request, ...change }),
    });
    for (const line of request.lines.keys()) yield changed({ lines: request.lines.toSpliced(line, 1) });
    if (request.before !== '') yield changed({ before: '' });
    if (request.eol !== '\r\n') yield changed({ eol: '\r\n' });
    if (request.version !== 'HTTP/1.1') yield changed({ version: 'HTTP/1.1' });
    if (request.method !== 'GET') yield changed({ method: 'GET' });
  }
}

/** For people who have to find out which of the two is right. */
export function story({ difference, times }: Unexplained, seed: number): string {
  const { facet, between, case: what, request, detail, theirs, ours } = difference;
  const { number, manner, pipelined, requests } = what;
  return [
    `${facet} ${between} (${manner}), ${times} times: ${detail}`,
    `  seed ${seed}, case ${number}${pipelined ? ', pipelined' : ''}, request ${requests.indexOf(request) + 1}`,
    ...requests.map((one) => `  > ${JSON.stringify(requestText(one, '/cN').slice(0, 600))}`),
    `  < ${shown(theirs)}`,
    `  < ${shown(ours)}`,
  ].join('\n');
}

function shown(seen: Seen): string {
  if (seen.kind !== 'answer') return seen.kind === 'none' ? 'hung up' : `broken: ${seen.why}`;
  const { status, fields, body } = seen.answer;
  const lines = fields.map(([name, value]) => `${name}: ${value}`).join('; ');
  return `${status} ${seen.open ? 'open' : 'closed'} ${lines}; ${body.length} bytes: ${JSON.stringify(body.subarray(0, 60).toString('latin1'))}`;
}
