// Tools that a test may need beyond Node. Where one is missing the test is skipped and the run ends with the apt-get line
// that mends it; under LARDER_TEST_ALL=1 (as .ci/run sets it) a missing tool is a failure.
//
//   const ffmpeg = needsTool('ffmpeg');
//   describe.skipIf(ffmpeg === null)('ffmpeg reads a steered title', () => { … run(ffmpeg!, […]) … });

import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { inject } from 'vitest';
import type { TestProject } from 'vitest/node';

declare module 'vitest' {
  interface ProvidedContext {
    missingToolsFile: string;
  }
}

export type Tool = 'chromium' | 'curl' | 'ffmpeg' | 'h2load' | 'nginx' | 'openssl' | 'varnishd' | 'wrk';

/** One line per tool, its command and its Debian package; .ci/run installs from the same file. */
const packages = new Map(
  readFileSync(join(import.meta.dirname, 'tools.txt'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => line.split(' ') as [Tool, string]),
);

/** Debian keeps servers in sbin, which the PATH of a plain user lacks. */
const SERVER_DIRECTORIES = ['/usr/local/sbin', '/usr/sbin'];

/** Path of the tool; null where it is missing, and then it is listed at the end of the run. */
export function needsTool(tool: Tool): string | null {
  const directories = [...(process.env['PATH'] ?? '').split(delimiter), ...SERVER_DIRECTORIES];
  const found = directories.map((directory) => join(directory, tool)).find((path) => existsSync(path));
  if (found !== undefined) return found;
  if (process.env['LARDER_TEST_ALL'] === '1')
    throw new Error(`LARDER_TEST_ALL=1 and there is no ${tool}; run: apt-get install ${packages.get(tool)}`);
  appendFileSync(inject('missingToolsFile'), `${tool}\n`);
  return null;
}

/** Run by vitest before all tests; what it returns runs after the summary. */
export default function listMissingTools(project: TestProject): () => void {
  const directory = mkdtempSync(join(tmpdir(), 'larder-tools-'));
  const file = join(directory, 'missing');
  project.provide('missingToolsFile', file);
  return () => {
    const missing = existsSync(file) ? new Set(readFileSync(file, 'utf8').trim().split('\n')) : [];
    for (const tool of missing) {
      process.stdout.write(
        `Skipped for want of ${tool}; to run these tests too: apt-get install ${packages.get(tool as Tool)}\n`,
      );
    }
    rmSync(directory, { recursive: true, force: true });
  };
}
