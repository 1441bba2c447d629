// The reaper process. The demo holds the other end of this process's stdin and reports on it, line by line, which process groups
// it has started and which directory it uses. When that pipe closes, after Ctrl-C, a crash or a `kill -9` of the demo, the reaper
// kills every remaining group and deletes the directory. However the demo ends, it leaves no process, port or file behind.

import { rmSync } from 'node:fs';
import { createInterface } from 'node:readline';

const groups = new Set<number>();
const directories = new Set<string>();

// A terminal sends Ctrl-C to its whole foreground group. Only the end of the pipe counts here.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);

const lines = createInterface({ input: process.stdin });

lines.on('line', (line) => {
  const [event, value = ''] = line.split(' ', 2);
  if (event === 'started') groups.add(Number(value));
  else if (event === 'ended') groups.delete(Number(value));
  else if (event === 'directory') directories.add(line.slice('directory '.length));
});

lines.on('close', () => {
  for (const group of groups) {
    try {
      process.kill(-group, 'SIGKILL');
    } catch {
      // The group has ended already.
    }
  }
  for (const directory of directories) rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
  process.exit(0);
});
