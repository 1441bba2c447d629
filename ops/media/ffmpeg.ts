// Runs ffmpeg so that the same ffmpeg makes the same bytes again: one thread, nothing stamped with the day, and whole
// files only under their own names.

import { spawn } from 'node:child_process';
import { rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/** Run ffmpeg on one thread and without anything in the output that depends on the day. */
export async function ffmpeg(args: string[], out: string, whole = true): Promise<void> {
  // A file appears under its own name only when it is complete, so that --work never reuses half of one.
  const target = whole ? join(dirname(out), `part-${out.slice(dirname(out).length + 1)}`) : out;
  const all = ['-nostdin', '-hide_banner', '-loglevel', 'error', '-y', ...args, '-threads', '1', '-fflags', '+bitexact', '-flags', '+bitexact', '-map_metadata', '-1', target];
  await new Promise<void>((done, fail) => {
    const child = spawn('ffmpeg', all, { stdio: ['ignore', 'inherit', 'inherit'] });
    child.on('error', (error) => { fail(new Error(`ffmpeg does not start (${error.message}): install ffmpeg`)); });
    child.on('close', (code) => { if (code === 0) done(); else fail(new Error(`ffmpeg ended with ${code} making ${out}`)); });
  });
  if (whole) await rename(target, out);
}
