// Tools beyond Node that tests require. A test whose tool is missing is skipped, and the run ends with the apt-get command that
// installs it. With LARDER_TEST_ALL=1, which .ci/run sets, a missing tool is a failure.
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

export type Tool = 'aria2c' | 'chromium' | 'curl' | 'ffmpeg' | 'h2load' | 'nginx' | 'openssl' | 'varnishd' | 'wrk';

/** Each line has a command and its Debian package. .ci/run installs from the same file. */
const packages = new Map(
  readFileSync(join(import.meta.dirname, 'tools.txt'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => line.split(' ') as [Tool, string]),
);

/** Debian installs servers in sbin, which is not in the PATH of ordinary users. */
const SERVER_DIRECTORIES = ['/usr/local/sbin', '/usr/sbin'];

/** The path of the tool, or null if it is missing. Missing tools are listed at the end of the run. */
export function needsTool(tool: Tool): string | null {
  const directories = [...(process.env['PATH'] ?? '').split(delimiter), ...SERVER_DIRECTORIES];
  const found = directories.map((directory) => join(directory, tool)).find((path) => existsSync(path));
  if (found !== undefined) return found;
  if (process.env['LARDER_TEST_ALL'] === '1')
    throw new Error(`LARDER_TEST_ALL=1 and there is no ${tool}; run: apt-get install ${packages.get(tool)}`);
  appendFileSync(inject('missingToolsFile'), `${tool}\n`);
  return null;
}

/** Called by vitest before all tests. The returned function is called after the summary. */
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
