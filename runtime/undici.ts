// undici, loaded when there is something to fetch: it takes a twentieth of a second, which a process that serves hits can do without
// until it is ready.

import { createRequire } from 'node:module';
import type * as Undici from 'undici';

const load = createRequire(import.meta.url);

export const undici = (): typeof Undici => load('undici') as typeof Undici;

const SOON_MS = 1_000;

/** For a process that has just become ready: the first who needs it shall not wait for it either. */
export const loadUndiciSoon = (): void => void setTimeout(undici, SOON_MS).unref();
