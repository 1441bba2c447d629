// Paths of the package's own files, whether it runs from dist/ or from source.

import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createRequire } from 'node:module';

export const packageRoot: string = existsSync(join(import.meta.dirname, '..', 'package.json'))
  ? dirname(import.meta.dirname)
  : dirname(dirname(import.meta.dirname));

const require = createRequire(import.meta.url);

export const packageVersion: string = (require(join(packageRoot, 'package.json')) as { version: string }).version;

/** Path of a module to fork: `.js` in dist/, `.ts` from source. */
export const siblingModule = (directory: string, name: string): string =>
  join(directory, name + (existsSync(join(directory, `${name}.js`)) ? '.js' : '.ts'));
