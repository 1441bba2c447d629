// Outlives the demo for one moment. The demo holds the other end of this process's stdin and tells it, line by line, which
// process groups it has started and which directory it uses. When that pipe ends, by Ctrl-C, a crash or `kill -9`, every
// group that is left is killed and the directory removed. That way no death of the demo leaves a process or a port.

import { rmSync } from 'node:fs';
import { createInterface } from 'node:readline';

const groups = new Set<number>();
const directories = new Set<string>();

// Ctrl-C reaches everything in the terminal's foreground; the pipe alone decides here.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);

const lines = createInterface({ input: process.stdin });

lines.on('line', (line) => {
  const [word, value = ''] = line.split(' ', 2);
  if (word === 'started') groups.add(Number(value));
  else if (word === 'ended') groups.delete(Number(value));
  else if (word === 'directory') directories.add(line.slice('directory '.length));
});

lines.on('close', () => {
  for (const group of groups) {
    try {
      process.kill(-group, 'SIGKILL');
    } catch {
      // Gone already.
    }
  }
  for (const directory of directories) rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
  process.exit(0);
});
