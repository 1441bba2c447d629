// An asset version as workers see it: its header fields, its length, and where its block files are. The storekeeper sends it
// with every lookup.

import type { HoldingId } from '../../protocol/ids.ts';

export interface AssetView {
  readonly key: string;
  /** Strong entity tag, or a name of our own for a response without one. */
  readonly version: string;
  /** Entity tag by which a worker may ask the origin for this very version. Null if it has none of the origin's, and in a fleet. */
  readonly originTag: string | null;
  readonly bytes: number;
  /** The stored response fields, names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  /** When the origin generated it, from which its age counts. Null if it is catalogued, because then it does not age. */
  readonly generatedAtMs: number | null;
  readonly holding: HoldingId | null;
  /** Together with the number of a block, the name of a block file. Unique in its volume. */
  readonly id: number;
  readonly volume: number;
  /** The directory of the volume. */
  readonly directory: string;
}
