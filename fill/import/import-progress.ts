// How far an import is. Sizes become known as the origin answers; until then an asset is expected to be of mean size, so
// that a bar moves evenly from the start.

export interface Counts {
  readonly assetsDone: number;
  readonly assetsTotal: number;
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

export const NO_COUNTS: Counts = { assetsDone: 0, assetsTotal: 0, bytesDone: 0, bytesTotal: 0 };

export class Tally {
  assetsTotal = 0;
  assetsDone = 0;
  /** Of assetsDone, those that the origin said have not changed. */
  assetsUnchanged = 0;
  /** Every byte that came, those of broken attempts too. */
  bytesFetched = 0;
  readonly #received = new Map<string, number>();
  readonly #lengths = new Map<string, number>();
  #receivedBytes = 0;
  #lengthBytes = 0;

  /** Bytes of an asset that have come in the present attempt, and its length once known. */
  note(path: string, receivedBytes: number, lengthBytes: number | null): void {
    this.#receivedBytes += receivedBytes - (this.#received.get(path) ?? 0);
    this.#received.set(path, receivedBytes);
    if (lengthBytes === null) return;
    this.#lengthBytes += lengthBytes - (this.#lengths.get(path) ?? 0);
    this.#lengths.set(path, lengthBytes);
  }

  finish(path: string, bytes: number): void {
    this.note(path, bytes, bytes);
    this.assetsDone += 1;
  }

  counts(): Counts {
    const { assetsDone, assetsTotal } = this;
    // Before the manifests are read the number of assets is unknown, and so is everything else.
    if (assetsTotal === 0) return NO_COUNTS;
    const known = this.#lengths.size;
    const mean = known === 0 ? 0 : this.#lengthBytes / known;
    const bytesTotal = this.#lengthBytes + Math.round(mean * Math.max(0, assetsTotal - known));
    return { assetsDone, assetsTotal, bytesDone: Math.min(this.#receivedBytes, bytesTotal), bytesTotal };
  }
}
