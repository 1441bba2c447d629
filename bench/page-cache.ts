// Controls the page cache: evicts files, so that they are read from disk as after a reboot, and pins files in memory.

import { execFile } from 'node:child_process';
import { closeSync, fstatSync, openSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import koffi from 'koffi';

const POSIX_FADV_DONTNEED = 4;
const PROT_READ = 1;
const MAP_SHARED_POPULATE = 0x8001;

const run = promisify(execFile);

/** Evicts all files below the directory. They are synced first, because dirty pages are not evicted. */
export async function evictFromPageCache(directory: string): Promise<void> {
  await run('sync', ['-f', directory]);
  const advise = koffi.load(null).func('int posix_fadvise(int fd, int64_t from, int64_t bytes, int advice)');
  for (const { fd } of openFiles(directory)) advise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

/**
 * Keeps the files below the directory, or those of at most `bytesMax`, in the page cache until the returned function is called.
 * A machine may reclaim pages that no process has mapped and that were not read for seconds (DAMON), as happens while another
 * contestant is measured. Pages that are read in again are scattered in memory.
 */
export function pinInPageCache(directory: string, bytesMax = Number.POSITIVE_INFINITY): () => void {
  const libc = koffi.load(null);
  const mmap = libc.func(
    'uintptr_t mmap(uintptr_t at, size_t bytes, int protection, int flags, int fd, int64_t offset)',
  );
  const munmap = libc.func('int munmap(uintptr_t at, size_t bytes)');
  const mappings: { readonly at: number; readonly bytes: number }[] = [];
  for (const { fd, path } of openFiles(directory)) {
    const bytes = fstatSync(fd).size;
    if (bytes === 0 || bytes > bytesMax) continue;
    const at: unknown = mmap(0, bytes, PROT_READ, MAP_SHARED_POPULATE, fd, 0);
    if (typeof at !== 'number') throw new Error(`cannot map ${bytes} bytes of ${path}`);
    mappings.push({ at, bytes });
  }
  return () => {
    for (const { at, bytes } of mappings) munmap(at, bytes);
  };
}

/** The files below the directory, each open until the next one is taken. */
function* openFiles(directory: string): Generator<{ readonly fd: number; readonly path: string }> {
  for (const each of readdirSync(directory, { recursive: true, withFileTypes: true })) {
    const path = join(each.parentPath, each.name);
    const fd = each.isFile() ? openIfPresent(path) : null;
    if (fd === null) continue;
    try {
      yield { fd, path };
    } finally {
      closeSync(fd);
    }
  }
}

/** Null if the file has gone: running servers create and delete files meanwhile. */
function openIfPresent(path: string): number | null {
  try {
    return openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
