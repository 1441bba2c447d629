// An asset version as the serving side knows it: what its headers say, how long it is, and where its block files lie.

import type { HoldingId } from '../../protocol/ids.ts';

export interface AssetView {
  readonly key: string;
  readonly version: string;
  /** Entity tag by which the origin can be asked for this very version; null when the version has a name of Larder's own. */
  readonly originTag: string | null;
  readonly bytes: number;
  readonly headers: Readonly<Record<string, string>>;
  /** The instant from which its age counts; null for a catalogued asset, which does not age. */
  readonly generatedAtMs: number | null;
  readonly holding: HoldingId | null;
  readonly id: number;
  readonly volume: number;
  readonly directory: string;
}
