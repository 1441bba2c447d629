// Question: what are the hit ratio and the write ratio of each value of --admission, compared with FIFO, SIEVE and Belady's optimum?
// Decision it informs: the default policies (decisions/0016-admission.md).
//
// The policies are those of the appliance. As a check of the simulation, LRU must have the hit ratio that theory predicts, and no
// policy may have more byte hits than Belady.

import { admitAll } from '../appliance/store/admission.ts';
import { demandPolicy, type AdmissionPolicy } from '../appliance/store/demand-policy.ts';
import { DISK_RUN_GEOMETRY, runKey } from '../appliance/store/eviction-policy.ts';
import { belady } from './belady.ts';
import { absolute, type Bench, type Finding, type Peer } from './bench.ts';
import { cheHitRatio } from './che-approximation.ts';
import { FifoPolicy, SievePolicy } from './eviction-policies.ts';
import {
  EXACT_RUNS,
  footprintBytes,
  replay,
  splitIntoRuns,
  type Simulation,
  type CachePolicy,
  type HitStats,
} from './replay.ts';
import { readTrace } from './trace-file.ts';
import { eveningTrace, zipfTrace, zipfTraceWithScans, zipfShares, type Trace } from './trace.ts';

const SEED = 1;
/** Capacity as a share of all requested bytes; scans do not count. */
const CAPACITY_SHARE = 0.1;
const BYTES_PER_RUN_MAX = 24;

/** Zipf exponents and cache sizes for which LRU is compared with Che's approximation. */
export const CHE_POINTS = [
  { alpha: 0.8, percent: 10 },
  { alpha: 1, percent: 10 },
  { alpha: 0.8, percent: 1 },
  { alpha: 1.2, percent: 1 },
] as const;
const CHE_ERROR_MAX = 0.005;

const PEERS: readonly Peer[] = [
  { name: 'lru', role: 'cache', configuration: 'admits all; the default stand-alone' },
  { name: 's3-fifo', role: 'cache', configuration: 'admits all to a small queue of 10 %' },
  { name: 'fifo', role: 'reference', configuration: 'admits all' },
  { name: 'sieve', role: 'reference', configuration: 'admits all' },
  { name: 'belady', role: 'reference', configuration: 'knows the future, moves single bytes' },
];

export const admission: Bench = {
  name: 'admission',
  question: 'hit and write ratio by admission policy (larder: second-hit)',
  packages: [],
  small: { objects: 10_000, requests: 200_000, evening: 60_000, che: 500_000, runs: 400_000 },
  large: { objects: 10_000, requests: 1_000_000, evening: 600_000, che: 4_000_000, runs: 5_000_000 },
  async run(parameters, log, { trace: path } = { trace: null }) {
    const spec = { objects: parameters['objects']!, alpha: 0.8, requests: parameters['requests']!, seed: SEED };
    const video =
      path === null
        ? eveningTrace({ titles: 400, viewers: 150, requests: parameters['evening']!, seed: SEED })
        : await readTrace(path);
    const independent = [zipfTrace(spec), zipfTraceWithScans({ ...spec, every: spec.objects, scan: spec.objects / 5 })];
    const workloads = [
      ...independent.map((trace) => ({ name: trace.name, trace, bytes: spec.objects })),
      { name: path === null ? video.name : 'trace', trace: video, bytes: footprintBytes(video) },
    ];
    const parts = [
      comparePolicies(workloads, log),
      compareWithTheory({ objects: spec.objects, requests: parameters['che']! }, log),
      memoryFindings(parameters['runs']!),
    ];
    return {
      peers: PEERS,
      findings: parts.flatMap(({ findings }) => findings),
      notes: parts.flatMap(({ notes }) => notes),
    };
  },
};

interface PartialOutcome {
  readonly findings: readonly Finding[];
  readonly notes: readonly string[];
}

interface Workload {
  readonly name: string;
  readonly trace: Trace;
  /** Bytes of which the cache holds a share. */
  readonly bytes: number;
}

/** The ratios of every policy on every workload, and the largest byte hit ratio in relation to Belady's. */
function comparePolicies(workloads: readonly Workload[], log: (progress: string) => void): PartialOutcome {
  const findings: Finding[] = [];
  const notes: string[] = [];
  let beladyShareMax = 0;
  for (const { name, trace, bytes } of workloads) {
    const simulation = simulationOf(trace, bytes);
    const { belady: best, ...others } = simulatePolicies(simulation);
    for (const { byteHitRatio } of Object.values(others))
      if (byteHitRatio > 0) beladyShareMax = Math.max(beladyShareMax, byteHitRatio / best!.byteHitRatio);
    findings.push(...ratioFindings(name, { ...others, belady: best! }));
    notes.push(describeSimulation(simulation));
    log(`${trace.name}: replayed`);
  }
  findings.push(absolute('byte hits ÷ Belady', 'at most', beladyShareMax, 1));
  return { findings, notes };
}

/** How far the hit ratio of LRU is from Che's approximation. */
function compareWithTheory(
  spec: { readonly objects: number; readonly requests: number },
  log: (progress: string) => void,
): PartialOutcome {
  const findings: Finding[] = [];
  const notes: string[] = [];
  for (const point of CHE_POINTS) {
    const { measured, expected } = compareLruWithChe({ ...point, ...spec });
    const what = `lru, zipf ${point.alpha}, ${point.percent} %`;
    findings.push(absolute(what, '‰ off', 1_000 * Math.abs(measured - expected), 1_000 * CHE_ERROR_MAX));
    notes.push(`${what}: ${measured.toFixed(4)} of requests hit, ${expected.toFixed(4)} by Che's approximation.`);
    log(`${what}: replayed`);
  }
  return { findings, notes };
}

function memoryFindings(runs: number): PartialOutcome {
  const findings = (['lru', 's3-fifo'] as const).map((policy) =>
    absolute(`memory per run, ${policy}`, 'B', bytesPerRun(policy, runs), BYTES_PER_RUN_MAX),
  );
  return { findings, notes: [] };
}

/** A cache that holds a tenth of `bytes`. */
export function simulationOf(trace: Trace, bytes: number): Simulation {
  return { trace, runs: splitIntoRuns(trace), capacityBytes: Math.max(1, Math.floor(CAPACITY_SHARE * bytes)) };
}

/** Hit statistics by name of the policy: `second-hit` and those of PEERS. */
export function simulatePolicies(simulation: Simulation): Readonly<Record<string, HitStats>> {
  const { trace, capacityBytes } = simulation;
  const meanBytes = trace.sizes.reduce((sum, size) => sum + size, 0) / trace.sizes.length;
  // An appliance remembers about as many assets as it stores.
  const assets = Math.ceil(capacityBytes / meanBytes);
  const policyOf = (name: AdmissionPolicy): CachePolicy =>
    demandPolicy(name, { geometry: EXACT_RUNS, assets, seed: SEED });
  const policies: Readonly<Record<string, CachePolicy>> = {
    'second-hit': policyOf('second-hit'),
    lru: policyOf('lru'),
    's3-fifo': policyOf('s3-fifo'),
    fifo: { admission: admitAll, newPolicy: () => new FifoPolicy(EXACT_RUNS) },
    sieve: { admission: admitAll, newPolicy: () => new SievePolicy(EXACT_RUNS) },
  };
  const stats = Object.entries(policies).map(([name, policy]) => [name, replay(simulation, policy)] as const);
  return { ...Object.fromEntries(stats), belady: belady(simulation) };
}

function ratioFindings(name: string, stats: Readonly<Record<string, HitStats>>): Finding[] {
  const row = (what: string, better: 'more' | 'less', of: (policy: HitStats) => number): Finding => ({
    ...{ what: `${name} ${what}`, unit: '%', better, ratio: null, bar: null },
    larder: 100 * of(stats['second-hit']!),
    peers: PEERS.map((peer) => {
      const value = of(stats[peer.name]!);
      return Number.isNaN(value) ? null : 100 * value;
    }),
  });
  return [
    row('hit ratio', 'more', (policy) => policy.hitRatio),
    row('byte hit ratio', 'more', (policy) => policy.byteHitRatio),
    row('write ratio', 'less', (policy) => policy.writeRatio),
  ];
}

function describeSimulation({ trace, capacityBytes }: Simulation): string {
  const count = (value: number): string => value.toLocaleString('en');
  return `${trace.name}: ${count(trace.requests.length)} requests for ${count(trace.sizes.length)} objects, of which ${count(capacityBytes)} bytes fit.`;
}

/** Measures the hit ratio of LRU after a warm-up of a fifth of the requests. */
export function compareLruWithChe(spec: {
  readonly alpha: number;
  readonly percent: number;
  readonly objects: number;
  readonly requests: number;
}): { readonly measured: number; readonly expected: number } {
  const trace = zipfTrace({ ...spec, seed: SEED });
  const capacityBytes = (spec.objects * spec.percent) / 100;
  const demand = demandPolicy('lru', { geometry: EXACT_RUNS, assets: 1, seed: SEED });
  const { hitRatio } = replay(
    { trace, runs: splitIntoRuns(trace), capacityBytes, warmUpRequests: Math.floor(spec.requests / 5) },
    demand,
  );
  return { measured: hitRatio, expected: cheHitRatio(zipfShares(spec.objects, spec.alpha), capacityBytes) };
}

/** Memory of the policy in the worst case: each asset is one small block, and as many assets have been evicted as are stored. */
function bytesPerRun(policy: AdmissionPolicy, runs: number): number {
  const evictionPolicy = demandPolicy(policy, { geometry: DISK_RUN_GEOMETRY, assets: 1, seed: SEED }).newPolicy(
    (key) => key,
  );
  for (let id = 1; id <= 2 * runs; id += 1) {
    if (id > runs) evictionPolicy.evict();
    evictionPolicy.add(runKey(id, 0), DISK_RUN_GEOMETRY.unitBytes);
  }
  return evictionPolicy.memoryBytes / runs;
}
