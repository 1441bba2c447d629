// Non-blocking reads against a real page cache, and the advice for huge pages.

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

// On tmpfs every page is in memory, so no read would ever block.
const onDisk = process.platform === 'linux' && statfsSync(tmpdir()).type !== TMPFS;

describe.runIf(onDisk)('non-blocking reads', () => {
  const directory = mkdtempSync(join(tmpdir(), 'larder-nonblocking-'));
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

  test('cached bytes are read whole, to the offset given', () => {
    expect(memory.readNonblocking(fd, to, 0)).toBe(BYTES);
    expect(memory.buffer.subarray(AT).equals(content)).toBe(true);
    expect(memory.readNonblocking(fd, { ...to, bytes: 1_000 }, BYTES - 10)).toBe(10);
    expect(memory.readNonblocking(fd, to, BYTES)).toBe(0);
  });

  test('uncached bytes would block until a blocking read has fetched them', () => {
    execFileSync('dd', [`if=${path}`, 'iflag=nocache', 'count=0'], { stdio: 'ignore' });
    expect(memory.readNonblocking(fd, to, 0)).toBe(WOULD_BLOCK);
    readSync(fd, memory.buffer, AT, BYTES, 0);
    memory.buffer.fill(0);
    // The kernel may return short where it would start read-ahead; the next read continues there.
    for (let bytesRead = 0, at = 0; at < BYTES; at += bytesRead) {
      bytesRead = memory.readNonblocking(fd, { at: AT + at, bytes: BYTES - at }, at);
      expect(bytesRead).toBeGreaterThan(0);
    }
    expect(memory.buffer.subarray(AT).equals(content)).toBe(true);
  });

  test('an error is left to the blocking read to report', () => {
    expect(memory.readNonblocking(-1, to, 0)).toBe(WOULD_BLOCK);
  });
});

test.runIf(existsSync('/proc/self/smaps') && existsSync('/sys/kernel/mm/transparent_hugepage'))(
  'a buffer of one huge page is advised as such',
  () => {
    const before = hugePageBytes();
    const page = allocateHugePage();
    expect(page).toHaveLength(HUGE_PAGE_BYTES);
    expect(hugePageBytes() - before).toBe(HUGE_PAGE_BYTES);
  },
);

/** Bytes in mappings that are advised as huge pages. */
function hugePageBytes(): number {
  const mappings = readFileSync('/proc/self/smaps', 'utf8').split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  const advised = mappings.filter((mapping) => /^VmFlags:.* hg\b/m.test(mapping));
  return advised.reduce((bytes, mapping) => bytes + Number(/^Size:\s+(\d+) kB/m.exec(mapping)![1]) * 1_024, 0);
}
