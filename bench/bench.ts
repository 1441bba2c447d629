// What a bench is, how its samples become findings, and how findings are judged.

export interface Peer {
  /** Short, for the head of a column. */
  readonly name: string;
  /** Bars are held against the best cache; anything else is beside it for orientation. */
  readonly role: 'cache' | 'reference';
  /** What somebody would need to get the same figures. */
  readonly configuration: string;
}

export interface Bar {
  readonly of: 'ratio' | 'larder';
  readonly at: 'least' | 'most';
  readonly value: number;
}

export interface Finding {
  readonly what: string;
  readonly unit: string;
  readonly better: 'more' | 'less';
  readonly larder: number;
  /** In the order of the outcome's peers; null where a peer has no such figure. */
  readonly peers: readonly (number | null)[];
  /** Larder ÷ the best cache, median over interleaved pairs; null where no cache is beside it. */
  readonly ratio: number | null;
  readonly bar: Bar | null;
}

export interface Outcome {
  readonly peers: readonly Peer[];
  readonly findings: readonly Finding[];
  /** What a reader of the figures must know, such as a number that this machine made smaller. */
  readonly notes?: readonly string[];
}

export type Parameters = Readonly<Record<string, number>>;

export interface Bench {
  readonly name: string;
  readonly question: string;
  /** Debian packages beyond Node. */
  readonly packages: readonly string[];
  /** Run with the tests, so that it never rots. */
  readonly small: Parameters;
  readonly large: Parameters;
  readonly run: (parameters: Parameters, say: (progress: string) => void, given?: Given) => Promise<Outcome>;
}

/** What somebody who runs a bench may put into it. */
export interface Given {
  /** File of a recorded trace. */
  readonly trace: string | null;
}

/** Figures of each contestant by name, one per round. */
export type Samples = ReadonlyMap<string, readonly number[]>;

/** Rounds of one measure each, in turn, so that whatever else the machine does falls on all alike. */
export async function interleave<C extends { readonly name: string }>(
  spec: { readonly rounds: number; readonly contestants: readonly C[]; readonly say: (progress: string) => void },
  measure: (contestant: C, round: number) => Promise<number>,
): Promise<Samples> {
  const samples = new Map<string, number[]>(spec.contestants.map(({ name }) => [name, []]));
  for (let round = 0; round < spec.rounds; round += 1) {
    for (const contestant of spec.contestants) samples.get(contestant.name)!.push(await measure(contestant, round));
    spec.say(`round ${round + 1} of ${spec.rounds}`);
  }
  return samples;
}

/** Larder's samples beside its peers': medians, and the median ratio to the cache whose median is best. */
export function compare(spec: {
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

/** A figure of Larder's own that stands against a number, not against a peer. */
export function alone(what: string, unit: string, larder: number, most: number | null): Finding {
  return {
    what,
    unit,
    better: 'less',
    larder,
    peers: [],
    ratio: null,
    bar: most === null ? null : { of: 'larder', at: 'most', value: most },
  };
}

export const atLeast = (value: number): Bar => ({ of: 'ratio', at: 'least', value });
export const atMost = (value: number): Bar => ({ of: 'ratio', at: 'most', value });

export const median = (values: readonly number[]): number => quantile(values, 0.5);

/** Linear between neighbours; NaN of nothing. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = Float64Array.from(values).sort();
  const at = (sorted.length - 1) * share;
  const low = sorted[Math.floor(at)] ?? Number.NaN;
  const high = sorted[Math.ceil(at)] ?? Number.NaN;
  return low + (high - low) * (at - Math.floor(at));
}

export function meetsBar({ larder, ratio, bar }: Finding): boolean {
  if (bar === null) return true;
  const value = bar.of === 'ratio' ? (ratio ?? Number.NaN) : larder;
  return bar.at === 'least' ? value >= bar.value : value <= bar.value;
}
