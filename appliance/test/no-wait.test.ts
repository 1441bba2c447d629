import { execFileSync } from 'node:child_process';
import { closeSync, fsyncSync, mkdtempSync, openSync, readSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readNoWait, WOULD_WAIT } from '../no-wait.ts';
import { noise } from './rig.ts';

const TMPFS = 0x01021994;
const BYTES = 300_000;
const AT = 4_096;

// In memory alone nothing is ever cold.
const onDisk = process.platform === 'linux' && statfsSync(tmpdir()).type !== TMPFS;

describe.runIf(onDisk)('reads that never wait', () => {
  const directory = mkdtempSync(join(tmpdir(), 'larder-no-wait-'));
  const path = join(directory, 'file');
  const content = noise(BYTES);
  const to = { buffer: Buffer.alloc(AT + BYTES), at: AT, bytes: BYTES };
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
    expect(readNoWait(fd, to, 0)).toBe(BYTES);
    expect(to.buffer.subarray(AT).equals(content)).toBe(true);
    expect(readNoWait(fd, { ...to, bytes: 1_000 }, BYTES - 10)).toBe(10);
    expect(readNoWait(fd, to, BYTES)).toBe(0);
  });

  test('what is not would wait, until somebody has waited for it', () => {
    execFileSync('dd', [`if=${path}`, 'iflag=nocache', 'count=0'], { stdio: 'ignore' });
    expect(readNoWait(fd, to, 0)).toBe(WOULD_WAIT);
    readSync(fd, to.buffer, AT, BYTES, 0);
    to.buffer.fill(0);
    // The system may stop where it would read ahead; it goes on from there.
    for (let got = 0, at = 0; at < BYTES; at += got) {
      got = readNoWait(fd, { buffer: Buffer.from(to.buffer.buffer, AT + at), at: 0, bytes: BYTES - at }, at);
      expect(got).toBeGreaterThan(0);
    }
    expect(to.buffer.subarray(AT).equals(content)).toBe(true);
  });

  test('an error is for the read that may wait to tell', () => {
    expect(readNoWait(-1, to, 0)).toBe(WOULD_WAIT);
  });
});
