// Runs ffmpeg reproducibly: on one thread and without timestamps, so that the same version of ffmpeg writes the same bytes. Output
// appears under its final name only once it is complete.

import { spawn } from 'node:child_process';
import { rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';

export async function ffmpeg(args: string[], out: string, whole = true): Promise<void> {
  // Written under a temporary name first, so that --work never reuses an incomplete file.
  const target = whole ? join(dirname(out), `part-${out.slice(dirname(out).length + 1)}`) : out;
  const all = ['-nostdin', '-hide_banner', '-loglevel', 'error', '-y', ...args, '-threads', '1', '-fflags', '+bitexact', '-flags', '+bitexact', '-map_metadata', '-1', target];
  await new Promise<void>((done, fail) => {
    const child = spawn('ffmpeg', all, { stdio: ['ignore', 'inherit', 'inherit'] });
    child.on('error', (error) => { fail(new Error(`ffmpeg does not start (${error.message}): install ffmpeg`)); });
    child.on('close', (code) => { if (code === 0) done(); else fail(new Error(`ffmpeg ended with ${code} making ${out}`)); });
  });
  if (whole) await rename(target, out);
}
