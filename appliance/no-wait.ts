// Reads that never wait: what is in the page cache comes at once, for anything else the answer is "it would wait". Node has
// no name for that, so libc is called directly; the system call is preadv2 with RWF_NOWAIT.

import koffi from 'koffi';

const RWF_NOWAIT = 0x8;
const IOVEC_BYTES = 16;

/** The system says that it would have to wait. */
export const WOULD_WAIT = -1;
/** The system or the file system of this file knows no such reads. */
export const UNSUPPORTED = -2;

const UNSUPPORTED_ERRORS = new Set(['EOPNOTSUPP', 'ENOSYS', 'EINVAL'].map((name) => koffi.os.errno[name]));

type Preadv2 = (fd: number, vector: Buffer, count: number, position: number, flags: number) => number;

const preadv2 = find();
const vectors = new WeakMap<Buffer, Buffer>();

/** Bytes read, perhaps fewer than asked for, 0 at the end of the file; or one of the two words above. */
export function readNoWait(fd: number, to: { buffer: Buffer; at: number; bytes: number }, position: number): number {
  if (preadv2 === null) return UNSUPPORTED;
  const vector = vectorOf(to.buffer, to.at);
  vector.writeUInt32LE(to.bytes, 8);
  const got = preadv2(fd, vector, 1, position, RWF_NOWAIT);
  if (got >= 0) return got;
  // Any other error is told by the read that may wait.
  return UNSUPPORTED_ERRORS.has(koffi.errno()) ? UNSUPPORTED : WOULD_WAIT;
}

/** An iovec whose length is still to be set. A buffer is always filled from the same place, so its address is looked up once. */
function vectorOf(buffer: Buffer, at: number): Buffer {
  const known = vectors.get(buffer);
  if (known !== undefined) return known;
  const vector = Buffer.alloc(IOVEC_BYTES);
  vector.writeBigUInt64LE(koffi.address(buffer) + BigInt(at), 0);
  vectors.set(buffer, vector);
  return vector;
}

/** Null where the system has no such call. */
function find(): Preadv2 | null {
  if (process.platform !== 'linux') return null;
  try {
    return koffi.load(null).func('int64_t preadv2(int fd, const uint8_t *iov, int n, int64_t offset, int flags)');
  } catch {
    return null;
  }
}
