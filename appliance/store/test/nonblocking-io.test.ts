import { execFileSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statfsSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { HUGE_PAGE_BYTES, allocateHugePage, NativeBuffer, WOULD_BLOCK } from '../nonblocking-io.ts';
import { noise } from '../../test/rig.ts';

const TMPFS = 0x01021994;
const BYTES = 300_000;
const AT = 4_096;

// In memory alone nothing is ever cold.
const onDisk = process.platform === 'linux' && statfsSync(tmpdir()).type !== TMPFS;

describe.runIf(onDisk)('reads that never wait', () => {
  const directory = mkdtempSync(join(tmpdir(), 'larder-no-wait-'));
  const path = join(directory, 'file');
  const content = noise(BYTES);
  const memory = new NativeBuffer(Buffer.allocUnsafeSlow(AT + BYTES));
  const to = { at: AT, bytes: BYTES };
  let fd: number;

  beforeAll(() => {
    fd = openSync(path, 'w+');
    writeSync(fd, content);
    fsyncSync(fd);
  });
  afterAll(() => {
    closeSync(fd);
    rmSync(directory, { recursive: true });
  });

  test('what is in the page cache comes whole, at the place it was asked for', () => {
    expect(memory.readNonblocking(fd, to, 0)).toBe(BYTES);
    expect(memory.buffer.subarray(AT).equals(content)).toBe(true);
    expect(memory.readNonblocking(fd, { ...to, bytes: 1_000 }, BYTES - 10)).toBe(10);
    expect(memory.readNonblocking(fd, to, BYTES)).toBe(0);
  });

  test('what is not would wait, until somebody has waited for it', () => {
    execFileSync('dd', [`if=${path}`, 'iflag=nocache', 'count=0'], { stdio: 'ignore' });
    expect(memory.readNonblocking(fd, to, 0)).toBe(WOULD_BLOCK);
    readSync(fd, memory.buffer, AT, BYTES, 0);
    memory.buffer.fill(0);
    // The system may stop where it would read ahead; it goes on from there.
    for (let got = 0, at = 0; at < BYTES; at += got) {
      got = memory.readNonblocking(fd, { at: AT + at, bytes: BYTES - at }, at);
      expect(got).toBeGreaterThan(0);
    }
    expect(memory.buffer.subarray(AT).equals(content)).toBe(true);
  });

  test('an error is for the read that may wait to tell', () => {
    expect(memory.readNonblocking(-1, to, 0)).toBe(WOULD_BLOCK);
  });
});

test.runIf(existsSync('/proc/self/smaps') && existsSync('/sys/kernel/mm/transparent_hugepage'))(
  'the system is asked to lay a huge page in one',
  () => {
    const before = bytesAskedFor();
    const page = allocateHugePage();
    expect(page).toHaveLength(HUGE_PAGE_BYTES);
    expect(bytesAskedFor() - before).toBe(HUGE_PAGE_BYTES);
  },
);

/** What lies in mappings that are marked so. */
function bytesAskedFor(): number {
  const mappings = readFileSync('/proc/self/smaps', 'utf8').split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  const asked = mappings.filter((mapping) => /^VmFlags:.* hg\b/m.test(mapping));
  return asked.reduce((bytes, mapping) => bytes + Number(/^Size:\s+(\d+) kB/m.exec(mapping)![1]) * 1_024, 0);
}
