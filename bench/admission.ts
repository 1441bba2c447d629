// Question: what does the demand share hit, and what does it write, with each choice of --admission, beside FIFO, SIEVE and
// whoever knows the future? Decision it informs: which choice is the default where (decisions/0016-admission.md).
//
// The orders and the admission are those that serve. LRU must hit what theory says it does, and nobody more bytes than Belady.

import { admitAll, demandPolicy, type AdmissionPolicy } from '../appliance/store/admission.ts';
import { DISK_RUN_GEOMETRY, runKey } from '../appliance/store/eviction.ts';
import { belady } from './belady.ts';
import { alone, type Bench, type Finding, type Peer } from './bench.ts';
import { cheHitRatio } from './che.ts';
import { Fifo, Sieve } from './orders.ts';
import { EXACT_RUNS, footprintOf, replay, runsOf, type Contest, type Decider, type Score } from './replay.ts';
import { readTrace } from './trace-file.ts';
import { evening, zipf, zipfAndScan, zipfShares, type Trace } from './trace.ts';

const SEED = 1;
/** Of what is asked for; of what is asked for more than once by chance, where there is a scan. */
const CAPACITY_SHARE = 0.1;
const RUN_BYTES_MOST = 24;

/** Points of the plane in which LRU is held against Che's approximation. */
export const CHE = [
  { alpha: 0.8, percent: 10 },
  { alpha: 1, percent: 10 },
  { alpha: 0.8, percent: 1 },
  { alpha: 1.2, percent: 1 },
] as const;
const CHE_OFF_MOST = 0.005;

const PEERS: readonly Peer[] = [
  { name: 'lru', role: 'cache', configuration: 'admits all; the default stand-alone' },
  { name: 's3-fifo', role: 'cache', configuration: 'admits all for a trial; small queue 10 %' },
  { name: 'fifo', role: 'reference', configuration: 'admits all' },
  { name: 'sieve', role: 'reference', configuration: 'admits all' },
  { name: 'belady', role: 'reference', configuration: 'knows the future, moves single bytes' },
];

export const admission: Bench = {
  name: 'admission',
  question: 'hits and writes of the demand share, by what it keeps (larder: second-hit)',
  packages: [],
  small: { objects: 10_000, requests: 200_000, evening: 60_000, che: 500_000, runs: 400_000 },
  large: { objects: 10_000, requests: 1_000_000, evening: 600_000, che: 4_000_000, runs: 5_000_000 },
  async run(parameters, say, { trace: path } = { trace: null }) {
    const spec = { objects: parameters['objects']!, alpha: 0.8, requests: parameters['requests']!, seed: SEED };
    const traces = [
      zipf(spec),
      zipfAndScan({ ...spec, every: spec.objects, scan: spec.objects / 5 }),
      path === null
        ? evening({ titles: 400, viewers: 150, requests: parameters['evening']!, seed: SEED })
        : await readTrace(path),
    ];
    const findings: Finding[] = [];
    const notes: string[] = [];
    let besideBelady = 0;
    for (const trace of traces) {
      const contest = contestOf(trace, trace === traces[2] ? footprintOf(trace) : spec.objects);
      const scores = scoresOf(contest);
      const best = scores['belady']!;
      for (const score of Object.values(scores))
        if (score !== best && score.bytes > 0) besideBelady = Math.max(besideBelady, score.bytes / best.bytes);
      findings.push(...findingsOf(path !== null && trace === traces[2] ? 'trace' : trace.name, scores));
      notes.push(descriptionOf(contest));
      say(`${trace.name}: replayed`);
    }
    findings.push(alone('bytes hit ÷ Belady', 'at most', besideBelady, 1));
    for (const point of CHE) {
      const { measured, expected } = lruBesideChe({ ...point, objects: spec.objects, requests: parameters['che']! });
      const what = `lru, zipf ${point.alpha}, ${point.percent} %`;
      findings.push(alone(what, '‰ off', 1_000 * Math.abs(measured - expected), 1_000 * CHE_OFF_MOST));
      notes.push(`${what}: ${measured.toFixed(4)} of requests hit, ${expected.toFixed(4)} by Che's approximation.`);
      say(`${what}: replayed`);
    }
    for (const policy of ['lru', 's3-fifo'] as const)
      findings.push(alone(`memory a run, ${policy}`, 'B', memoryOfRun(policy, parameters['runs']!), RUN_BYTES_MOST));
    return { peers: PEERS, findings, notes };
  },
};

export function contestOf(trace: Trace, footprintBytes: number): Contest {
  return { trace, runs: runsOf(trace), capacityBytes: Math.max(1, Math.floor(CAPACITY_SHARE * footprintBytes)) };
}

/** By name: `second-hit`, and those of PEERS. */
export function scoresOf(contest: Contest): Readonly<Record<string, Score>> {
  const { trace, capacityBytes } = contest;
  const meanBytes = trace.sizes.reduce((sum, size) => sum + size, 0) / trace.sizes.length;
  // As an appliance remembers them: about as many as it holds.
  const assets = Math.ceil(capacityBytes / meanBytes);
  const by = (policy: AdmissionPolicy): Decider => demandPolicy(policy, { geometry: EXACT_RUNS, assets, seed: SEED });
  const deciders: Readonly<Record<string, Decider>> = {
    'second-hit': by('second-hit'),
    lru: by('lru'),
    's3-fifo': by('s3-fifo'),
    fifo: { admission: admitAll, newPolicy: () => new Fifo(EXACT_RUNS) },
    sieve: { admission: admitAll, newPolicy: () => new Sieve(EXACT_RUNS) },
  };
  const scores = Object.entries(deciders).map(([name, decider]) => [name, replay(contest, decider)] as const);
  return { ...Object.fromEntries(scores), belady: belady(contest) };
}

function findingsOf(name: string, scores: Readonly<Record<string, Score>>): Finding[] {
  const row = (what: string, better: 'more' | 'less', of: (score: Score) => number): Finding => ({
    ...{ what: `${name} ${what}`, unit: '%', better, ratio: null, bar: null },
    larder: 100 * of(scores['second-hit']!),
    peers: PEERS.map((peer) => {
      const value = of(scores[peer.name]!);
      return Number.isNaN(value) ? null : 100 * value;
    }),
  });
  return [
    row('hits', 'more', (score) => score.objects),
    row('bytes hit', 'more', (score) => score.bytes),
    row('written', 'less', (score) => score.written),
  ];
}

function descriptionOf({ trace, capacityBytes }: Contest): string {
  const count = (value: number): string => value.toLocaleString('en');
  return `${trace.name}: ${count(trace.requests.length)} requests for ${count(trace.sizes.length)} objects, of which ${count(capacityBytes)} bytes fit.`;
}

/** After a warm-up of a fifth. */
export function lruBesideChe(spec: {
  readonly alpha: number;
  readonly percent: number;
  readonly objects: number;
  readonly requests: number;
}): { readonly measured: number; readonly expected: number } {
  const trace = zipf({ ...spec, seed: SEED });
  const capacityBytes = (spec.objects * spec.percent) / 100;
  const demand = demandPolicy('lru', { geometry: EXACT_RUNS, assets: 1, seed: SEED });
  const score = replay({ trace, runs: runsOf(trace), capacityBytes, warm: Math.floor(spec.requests / 5) }, demand);
  return { measured: score.objects, expected: cheHitRatio(zipfShares(spec.objects, spec.alpha), capacityBytes) };
}

/** In the worst case: every asset is a single small block, and as many have come and gone. */
function memoryOfRun(policy: AdmissionPolicy, runs: number): number {
  const order = demandPolicy(policy, { geometry: DISK_RUN_GEOMETRY, assets: 1, seed: SEED }).newPolicy((key) => key);
  for (let id = 1; id <= 2 * runs; id += 1) {
    if (id > runs) order.evict();
    order.add(runKey(id, 0), DISK_RUN_GEOMETRY.unitBytes);
  }
  return order.memoryBytes / runs;
}
