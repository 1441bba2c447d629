// Which volumes had a disk of their own when they were last used. A directory that had one, and is empty on the system's disk now, is a disk
// that was not mounted: a volume made anew there would fill the system's disk, and its blocks would be gone when the disk is back.

import { statSync } from 'node:fs';
import { Fault } from '../../protocol/faults.ts';
import { diskFault, makeDirectory } from '../../runtime/disk.ts';
import { isPrepared } from './layout.ts';

/** What is remembered: the directories. */
export interface OwnDiskRecord {
  readonly value: readonly string[];
  set(directories: string[]): Promise<void>;
}

export class KnownVolumes {
  readonly #record: OwnDiskRecord;
  /** A directory on the system's disk. */
  readonly #system: string;

  constructor(record: OwnDiskRecord, system: string) {
    this.#record = record;
    this.#system = system;
  }

  /** Throws `disk_failed` for a volume whose disk is not mounted. */
  check(directory: string): void {
    if (!this.#record.value.includes(directory) || this.#hasOwnDisk(directory) || isPrepared(directory)) return;
    throw new Fault(
      'disk_failed',
      `${directory} is empty and on the system's disk, but had a disk of its own: mount that, or a new one, and restart`,
    );
  }

  /** Remembers a volume that is in use. */
  async remember(directory: string): Promise<void> {
    const others = this.#record.value.filter((each) => each !== directory);
    const isKnown = others.length < this.#record.value.length;
    const hasOwnDisk = this.#hasOwnDisk(directory);
    if (isKnown !== hasOwnDisk) await this.#record.set(hasOwnDisk ? [...others, directory] : others);
  }

  #hasOwnDisk(directory: string): boolean {
    try {
      makeDirectory(directory);
      return statSync(directory).dev !== statSync(this.#system).dev;
    } catch (error) {
      throw diskFault(error, directory);
    }
  }
}
