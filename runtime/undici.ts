// Loads undici on first use. Loading takes 50 ms, which would delay the start of a process that serves hits from its store.

import type * as Undici from 'undici';
import { systemClock } from './clock.ts';
import { loadCommonJs } from './commonjs.ts';

export const undici = (): typeof Undici => loadCommonJs('undici') as typeof Undici;

const PRELOAD_DELAY_MS = 1_000;

/** Loads undici shortly after the process has become ready, so that the first fetch is not delayed either. */
export const preloadUndici = (): void => void systemClock.setTimeout(undici, PRELOAD_DELAY_MS).unref();
