// The directories that an appliance writes to, made and tried before anything is forked.

import { accessSync, constants, existsSync, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Fault } from '../protocol/faults.ts';
import type { ApplianceConfig } from './config.ts';

/** Level by level: below some kernel file systems Node's recursive form never ends. */
export function makeDirectory(path: string): void {
  if (existsSync(path)) return;
  makeDirectory(dirname(path));
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

/**
 * Throws `config_invalid` where nothing could be stored at all. One bad volume of several is no reason not to start: it
 * costs its blocks.
 */
export function validateDirectories(config: ApplianceConfig): void {
  const state = problemOf(config.state);
  const stores = config.store.map(problemOf).filter((problem) => problem !== null);
  const problems = [
    ...(state === null ? [] : [`--state: ${state}`]),
    ...(stores.length < config.store.length ? [] : stores.map((problem) => `--store: ${problem}`)),
  ];
  if (problems.length > 0)
    throw new Fault('config_invalid', `nothing can be written where the settings say:\n  ${problems.join('\n  ')}`);
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
