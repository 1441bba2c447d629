// The definition of a bench, its findings, the comparison of samples with peers, and the bars that findings must meet.

export interface Peer {
  /** Short, because it is the head of a column. */
  readonly name: string;
  /** Ratios are to the best `cache`. A `reference` is shown for orientation. */
  readonly role: 'cache' | 'reference';
  /** The configuration that is required to reproduce the figures. */
  readonly configuration: string;
}

/** A limit that a finding must meet: of the ratio to the best cache, or of Larder's own figure. */
export interface Bar {
  readonly of: 'ratio' | 'larder';
  readonly at: 'least' | 'most';
  readonly value: number;
  /** What no program reaches here: a finding of at least nine tenths of it is excused. */
  readonly limit?: number;
}

const EXCUSED_SHARE = 0.9;

/** One measured quantity, for Larder and its peers. */
export interface Finding {
  readonly what: string;
  readonly unit: string;
  readonly better: 'more' | 'less';
  readonly larder: number;
  /** In the order of the outcome's peers; null for a peer without this figure. */
  readonly peers: readonly (number | null)[];
  /** Larder ÷ best cache, median of the interleaved rounds; null without a cache to compare with. */
  readonly ratio: number | null;
  readonly bar: Bar | null;
}

export interface BenchOutcome {
  readonly peers: readonly Peer[];
  readonly findings: readonly Finding[];
  /** What is needed to interpret the figures, such as a load that was derived from this machine's capacity. */
  readonly notes?: readonly string[];
}

export type Parameters = Readonly<Record<string, number>>;

export interface Bench {
  readonly name: string;
  readonly question: string;
  /** Debian packages that the bench requires. */
  readonly packages: readonly string[];
  /** Parameters of the run in the test suite. */
  readonly small: Parameters;
  /** Parameters of a real measurement. */
  readonly large: Parameters;
  readonly run: (parameters: Parameters, log: (progress: string) => void, input?: BenchInput) => Promise<BenchOutcome>;
}

/** Input from the command line. */
interface BenchInput {
  /** Path of a recorded trace. */
  readonly trace: string | null;
}

/** The figures of each contestant, by name, one per round. */
export type Samples = ReadonlyMap<string, readonly number[]>;

/** Measures the contestants in turn, round by round, so that other activity of the machine affects all of them alike. */
export async function interleave<C extends { readonly name: string }>(
  spec: { readonly rounds: number; readonly contestants: readonly C[]; readonly log: (progress: string) => void },
  measure: (contestant: C, round: number) => Promise<number>,
): Promise<Samples> {
  const samples = new Map<string, number[]>(spec.contestants.map(({ name }) => [name, []]));
  for (let round = 0; round < spec.rounds; round += 1) {
    for (const contestant of spec.contestants) samples.get(contestant.name)!.push(await measure(contestant, round));
    spec.log(`round ${round + 1} of ${spec.rounds}`);
  }
  return samples;
}

/** The medians of Larder and its peers, and the median of the per-round ratios to the best cache. */
export function compareWithPeers(spec: {
  readonly what: string;
  readonly unit: string;
  readonly better: 'more' | 'less';
  readonly samples: Samples;
  readonly peers: readonly Peer[];
  readonly bar: Bar | null;
}): Finding {
  const { samples, peers, better } = spec;
  const own = samples.get('larder')!;
  const medians = peers.map(({ name }) => (samples.has(name) ? median(samples.get(name)!) : null));
  const caches = peers.flatMap(({ name, role }, at) =>
    role === 'cache' && medians[at] !== null ? [{ name, at }] : [],
  );
  const sign = better === 'more' ? -1 : 1;
  const best = caches.toSorted((a, b) => sign * (medians[a.at]! - medians[b.at]!))[0];
  return {
    what: spec.what,
    unit: spec.unit,
    better,
    larder: median(own),
    peers: medians,
    ratio: best === undefined ? null : median(own.map((value, round) => value / samples.get(best.name)![round]!)),
    bar: spec.bar,
  };
}

/** A finding without a ratio. Its bar, if any, is a maximum of Larder's own figure. */
export function absolute(what: string, unit: string, larder: number, max: number | null): Finding {
  return {
    what,
    unit,
    better: 'less',
    larder,
    peers: [],
    ratio: null,
    bar: max === null ? null : { of: 'larder', at: 'most', value: max },
  };
}

export const ratioAtLeast = (value: number): Bar => ({ of: 'ratio', at: 'least', value });
export const ratioAtMost = (value: number): Bar => ({ of: 'ratio', at: 'most', value });

export const median = (values: readonly number[]): number => quantile(values, 0.5);

/** Interpolates linearly; NaN without values. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = Float64Array.from(values).sort();
  const at = (sorted.length - 1) * share;
  const low = sorted[Math.floor(at)] ?? Number.NaN;
  const high = sorted[Math.ceil(at)] ?? Number.NaN;
  return low + (high - low) * (at - Math.floor(at));
}

/** Misses its bar, near the limit of the machine. */
export const isExcused = (finding: Finding): boolean =>
  !meetsBar(finding) && finding.larder >= EXCUSED_SHARE * (finding.bar?.limit ?? Number.POSITIVE_INFINITY);

export function meetsBar({ larder, ratio, bar }: Finding): boolean {
  if (bar === null) return true;
  const value = bar.of === 'ratio' ? (ratio ?? Number.NaN) : larder;
  return bar.at === 'least' ? value >= bar.value : value <= bar.value;
}
