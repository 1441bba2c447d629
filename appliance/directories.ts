// The directories that an appliance writes to: created and checked before anything is forked.

import { accessSync, closeSync, constants, existsSync, openSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { Fault } from '../protocol/faults.ts';
import { formatBytes } from '../protocol/units.ts';
import { makeDirectory } from '../runtime/disk.ts';
import type { Log } from '../runtime/log.ts';
import type { ApplianceConfig } from './config.ts';

const FREE_SHARE_MIN = 0.05;
export const SPACE_REMEDY = 'Lower --store-bytes, free space, or add a --store on another disk.';

/**
 * Throws `config_invalid` if the state directory, the access log or all volumes cannot be written. One bad volume of several is
 * no reason not to start: only its blocks are lost.
 */
export function validateDirectories(config: ApplianceConfig): void {
  const state = problemOf(config.state);
  const stores = config.store.map(problemOf).filter((problem) => problem !== null);
  const access = config.accessLog === null ? null : appendProblem(config.accessLog);
  const problems = [
    ...(access === null ? [] : [`--access-log: ${access}`]),
    ...(state === null ? [] : [`--state: ${state}`]),
    ...(stores.length < config.store.length ? [] : stores.map((problem) => `--store: ${problem}`)),
  ];
  if (problems.length > 0)
    throw new Fault('config_invalid', `nothing can be written where the settings say:\n  ${problems.join('\n  ')}`);
}

/** Why the share of a volume does not fit on its disk, with both figures; null if it fits. */
export function spaceProblem(config: ApplianceConfig, directory: string): string | null {
  const share = config.storeBytes / config.store.length;
  const { bavail, blocks, bsize } = statfsSync(directory);
  const [freeBytes, diskBytes] = [bavail * bsize, blocks * bsize];
  // An existing store has used part of its share already; a new one needs all of it free.
  const neededBytes = existsSync(join(directory, 'larder-store.json')) ? share * FREE_SHARE_MIN : share;
  if (diskBytes >= share && freeBytes >= neededBytes) return null;
  return `${directory} has ${formatBytes(freeBytes)} free on a disk of ${formatBytes(diskBytes)}; its share of --store-bytes is ${formatBytes(share)}`;
}

/** A warning rather than a fault, because the disk may be enlarged, and misses are served even from a full one. */
export function warnOfSpace(config: ApplianceConfig, log: Log): void {
  for (const directory of config.store) {
    try {
      const problem = spaceProblem(config, directory);
      if (problem !== null) log.warn({ volume: directory }, `${problem}. ${SPACE_REMEDY}`);
    } catch {
      // The storekeeper reports a volume that cannot be used.
    }
  }
}

function problemOf(directory: string): string | null {
  try {
    makeDirectory(directory);
    accessSync(join(directory, '.'), constants.W_OK | constants.X_OK);
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}

function appendProblem(file: string): string | null {
  try {
    closeSync(openSync(file, 'a', 0o640));
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}
