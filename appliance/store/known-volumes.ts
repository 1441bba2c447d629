// On which mount point each volume was when it was last used. A directory that was on a disk of its own, and is empty on another mount point
// now, is a disk that was not mounted: a volume made anew there would fill the system's disk, and its blocks would be gone when the disk is back.

import { statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { Fault } from '../../protocol/faults.ts';
import { diskFault, makeDirectory } from '../../runtime/disk.ts';
import { isPrepared } from './layout.ts';

interface KnownVolume {
  readonly directory: string;
  readonly mountPoint: string;
}

/** Where that is kept. */
export interface KnownVolumesRecord {
  readonly value: readonly KnownVolume[];
  set(volumes: KnownVolume[]): Promise<void>;
}

export class KnownVolumes {
  readonly #record: KnownVolumesRecord;

  constructor(record: KnownVolumesRecord) {
    this.#record = record;
  }

  /** Throws `disk_failed` for a volume whose disk is not mounted. */
  check(directory: string): void {
    const known = this.#find(directory);
    if (known === undefined || isPrepared(directory)) return;
    const mountPoint = mountPointOf(directory);
    // Another disk in its place has a mount point of its own.
    if (!isBelow(known.mountPoint, mountPoint)) return;
    throw new Fault(
      'disk_failed',
      `${directory} is empty and on the disk of ${mountPoint}, but had one of its own at ${known.mountPoint}: mount that, or a new one, and restart`,
    );
  }

  /** Remembers a volume that is in use. */
  async remember(directory: string): Promise<void> {
    const mountPoint = mountPointOf(directory);
    if (this.#find(directory)?.mountPoint === mountPoint) return;
    const others = this.#record.value.filter((each) => each.directory !== directory);
    await this.#record.set([...others, { directory, mountPoint }]);
  }

  #find(directory: string): KnownVolume | undefined {
    return this.#record.value.find((each) => each.directory === directory);
  }
}

const isBelow = (path: string, above: string): boolean =>
  path !== above && path.startsWith(above.endsWith('/') ? above : `${above}/`);

/** The highest directory above this one that is on the same device. */
function mountPointOf(directory: string): string {
  try {
    makeDirectory(directory);
    let at = resolve(directory);
    const { dev } = statSync(at);
    while (dirname(at) !== at && statSync(dirname(at)).dev === dev) at = dirname(at);
    return at;
  } catch (error) {
    throw diskFault(error, directory);
  }
}
