// Files out of the page cache: what a bench reads next comes from the disk, as after a reboot.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** All files below the directory. Written out first, for a dirty page stays. */
export async function dropPages(directory: string): Promise<void> {
  await run('sync', ['-f', directory]);
  await run('find', [directory, '-type', 'f', '-exec', 'dd', 'if={}', 'iflag=nocache', 'count=0', 'status=none', ';']);
}
