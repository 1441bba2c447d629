// The progress of one import. The size of an asset becomes known when the origin answers; until then it is assumed to be the
// mean of the known sizes, so that a progress bar moves evenly from the start.

export interface ProgressCounts {
  readonly assetsDone: number;
  readonly assetsTotal: number;
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

export const NO_COUNTS: ProgressCounts = { assetsDone: 0, assetsTotal: 0, bytesDone: 0, bytesTotal: 0 };

export class ProgressTracker {
  assetsTotal = 0;
  assetsDone = 0;
  /** Of `assetsDone`, those for which the origin answered 304. */
  assetsUnchanged = 0;
  /** All bytes received, also those of failed attempts. */
  bytesFetched = 0;
  readonly #received = new Map<string, number>();
  readonly #lengths = new Map<string, number>();
  #receivedBytes = 0;
  #lengthBytes = 0;

  /** Sets the bytes of an asset received in the current attempt, and its length if that is known. */
  setReceived(path: string, receivedBytes: number, lengthBytes: number | null): void {
    this.#receivedBytes += receivedBytes - (this.#received.get(path) ?? 0);
    this.#received.set(path, receivedBytes);
    if (lengthBytes === null) return;
    this.#lengthBytes += lengthBytes - (this.#lengths.get(path) ?? 0);
    this.#lengths.set(path, lengthBytes);
  }

  finishAsset(path: string, bytes: number): void {
    this.setReceived(path, bytes, bytes);
    this.assetsDone += 1;
  }

  counts(): ProgressCounts {
    const { assetsDone, assetsTotal } = this;
    // The number of assets is unknown until the manifests have been parsed, and without it the rest means nothing.
    if (assetsTotal === 0) return NO_COUNTS;
    const lengthsKnown = this.#lengths.size;
    const meanBytes = lengthsKnown === 0 ? 0 : this.#lengthBytes / lengthsKnown;
    const bytesTotal = this.#lengthBytes + Math.round(meanBytes * Math.max(0, assetsTotal - lengthsKnown));
    return { assetsDone, assetsTotal, bytesDone: Math.min(this.#receivedBytes, bytesTotal), bytesTotal };
  }
}
