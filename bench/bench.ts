// What a bench is, and how its findings are judged, printed and kept.

export interface Finding {
  readonly what: string;
  readonly unit: string;
  readonly larder: number;
  /** The best cache in the run. */
  readonly peer: number;
  /** Another figure for orientation, such as no cache at all; null where there is none. */
  readonly reference: number | null;
  /** Median over interleaved pairs, Larder ÷ peer. */
  readonly ratio: number;
  readonly bar: { readonly at: 'least' | 'most'; readonly ratio: number } | null;
}

export interface Outcome {
  readonly peers: readonly { readonly name: string; readonly configuration: string }[];
  readonly findings: readonly Finding[];
}

export type Parameters = Readonly<Record<string, number>>;

export interface Bench {
  readonly name: string;
  readonly question: string;
  /** Run with the tests, so that it never rots. */
  readonly small: Parameters;
  readonly large: Parameters;
  readonly run: (parameters: Parameters, say: (progress: string) => void) => Promise<Outcome>;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export const meetsBar = ({ ratio, bar }: Finding): boolean =>
  bar === null || (bar.at === 'least' ? ratio >= bar.ratio : ratio <= bar.ratio);
