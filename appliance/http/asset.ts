// An asset version as the serving side knows it: what its headers say, how long it is, and where its block files lie.

import type { HoldingId } from '../../protocol/ids.ts';

/** An asset version as workers know it. */
export interface AssetView {
  readonly key: string;
  readonly version: string;
  readonly bytes: number;
  readonly headers: Readonly<Record<string, string>>;
  /** Instant from which its age counts; null: catalogued, so it does not age. */
  readonly generatedAtMs: number | null;
  readonly holding: HoldingId | null;
  readonly id: number;
  readonly volume: number;
  readonly directory: string;
}
