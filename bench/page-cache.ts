// Files out of the page cache: what a bench reads next comes from the disk, as after a reboot. And files that stay in it.

import { execFile } from 'node:child_process';
import { closeSync, fstatSync, openSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import koffi from 'koffi';

const PROT_READ = 1;
const MAP_SHARED_POPULATE = 0x8001;

const run = promisify(execFile);

/** All files below the directory. Written out first, for a dirty page stays. */
export async function dropPages(directory: string): Promise<void> {
  await run('sync', ['-f', directory]);
  await run('find', [directory, '-type', 'f', '-exec', 'dd', 'if={}', 'iflag=nocache', 'count=0', 'status=none', ';']);
}

/**
 * The files below the directory, or those no longer than `bytesMax`, stay in the page cache until the returned function is called.
 * A machine may be set to take away what no process has mapped (DAMON) and nobody read for seconds, while others had their
 * turn; what comes back lies in pages from here and there.
 */
export function holdPages(directory: string, bytesMax = Number.POSITIVE_INFINITY): () => void {
  const libc = koffi.load(null);
  const mmap = libc.func(
    'uintptr_t mmap(uintptr_t at, size_t bytes, int protection, int flags, int fd, int64_t offset)',
  );
  const munmap = libc.func('int munmap(uintptr_t at, size_t bytes)');
  const mappings: { readonly at: number; readonly bytes: number }[] = [];
  for (const each of readdirSync(directory, { recursive: true, withFileTypes: true })) {
    const fd = each.isFile() ? openIfThere(join(each.parentPath, each.name)) : null;
    if (fd === null) continue;
    const bytes = fstatSync(fd).size;
    if (bytes > 0 && bytes <= bytesMax) {
      const at: unknown = mmap(0, bytes, PROT_READ, MAP_SHARED_POPULATE, fd, 0);
      if (typeof at !== 'number') throw new Error(`the system maps no ${bytes} bytes of ${each.name}`);
      mappings.push({ at, bytes });
    }
    closeSync(fd);
  }
  return () => {
    for (const { at, bytes } of mappings) munmap(at, bytes);
  };
}

/** Servers that run make files and remove them while somebody looks. */
function openIfThere(path: string): number | null {
  try {
    return openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
