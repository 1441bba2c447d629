// Reads and writes that never wait: what is in the page cache comes at once, what a socket has room for goes at once, and for
// the rest the answer is "it would wait". Node has no name for either, so libc is called directly: preadv2 with RWF_NOWAIT,
// send with MSG_DONTWAIT. Here too are the words to the system about buffers, its own and ours, that Node has no name for.

import koffi, { type KoffiFunc } from 'koffi';

const RWF_NOWAIT = 0x8;
const POSIX_FADV_DONTNEED = 4;
const MADV_HUGEPAGE = 14;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const IPPROTO_TCP = 6;
const TCP_NOTSENT_LOWAT = 25;
const IOVEC_BYTES = 16;

export const HUGE_PAGE_BYTES = 2 ** 21;

/** The system says that it would have to wait. */
export const WOULD_BLOCK = -1;
/** The system or the file system of this file knows no such reads. */
export const UNSUPPORTED = -2;

const UNSUPPORTED_ERRORS = new Set(['EOPNOTSUPP', 'ENOSYS', 'EINVAL'].map((name) => koffi.os.errno[name]));

interface Calls {
  readonly preadv2: (fd: number, vector: number, count: number, position: number, flags: number) => number;
  readonly send: (fd: number, bytes: number, count: number, flags: number) => number;
  readonly setsockopt: (fd: number, level: number, name: number, value: Buffer, bytes: number) => number;
  readonly madvise: (address: number, bytes: number, advice: number) => number;
  readonly posix_fadvise: KoffiFunc<(fd: number, from: number, bytes: number, advice: number) => number>;
}

const calls = find();

/** A buffer, and where it lies: it is never moved, so its address is looked up once. */
export class NativeBuffer {
  readonly buffer: Buffer;
  readonly #address: number;
  /** The iovec of the next read. */
  readonly #vector = Buffer.allocUnsafeSlow(IOVEC_BYTES);
  readonly #vectorAddress: number;

  constructor(buffer: Buffer) {
    this.buffer = buffer;
    this.#address = addressOf(buffer);
    this.#vectorAddress = addressOf(this.#vector);
  }

  /** Bytes read to `at`, perhaps fewer than asked for, 0 at the end of the file; or one of the two words above. */
  readNonblocking(fd: number, to: { readonly at: number; readonly bytes: number }, position: number): number {
    if (calls === null) return UNSUPPORTED;
    const { at, bytes } = to;
    if (at < 0 || bytes < 0 || at + bytes > this.buffer.length) throw new RangeError(`no ${bytes} bytes at ${at}`);
    writeWord(this.#vector, 0, this.#address + at);
    writeWord(this.#vector, 8, bytes);
    const got = calls.preadv2(fd, this.#vectorAddress, 1, position, RWF_NOWAIT);
    if (got >= 0) return got;
    // Any other error is told by the read that may wait.
    return UNSUPPORTED_ERRORS.has(koffi.errno()) ? UNSUPPORTED : WOULD_BLOCK;
  }

  /** How many of the bytes [from, to) the socket took, perhaps none. An error is told by the write that may wait. */
  sendNonblocking(fd: number, from: number, to: number): number {
    if (calls === null) return 0;
    if (from < 0 || to < from || to > this.buffer.length) throw new RangeError(`no bytes from ${from} to ${to}`);
    return Math.max(0, calls.send(fd, this.#address + from, to - from, MSG_DONTWAIT | MSG_NOSIGNAL));
  }
}

/** Of one huge page where the system has them, so that bytes next to each other lie next to each other in the core's cache as well. */
export function allocateHugePage(): Buffer {
  const around = Buffer.allocUnsafeSlow(2 * HUGE_PAGE_BYTES);
  const at = HUGE_PAGE_BYTES - (addressOf(around) % HUGE_PAGE_BYTES);
  calls?.madvise(addressOf(around) + at, HUGE_PAGE_BYTES, MADV_HUGEPAGE);
  return around.subarray(at, at + HUGE_PAGE_BYTES);
}

/** From now on the system takes no more of a socket's bytes than it can send and about so many, if it knows how; 0: as it likes. */
export function setUnsentLimit(fd: number, bytes: number): void {
  const value = Buffer.alloc(4);
  value.writeInt32LE(bytes);
  calls?.setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, value, value.length);
}

/**
 * Takes what is on disk of a file out of the page cache, if the system can. In the thread pool: for pages that came a moment ago
 * it waits until every core has counted its own.
 */
export function dropPages(fd: number): Promise<void> {
  return new Promise((resolve) => {
    if (calls === null) resolve();
    else calls.posix_fadvise.async(fd, 0, 0, POSIX_FADV_DONTNEED, () => resolve());
  });
}

const addressOf = (buffer: Buffer): number => (calls === null ? 0 : Number(koffi.address(buffer)));

/** Addresses have 48 bits, which a double holds exactly. */
function writeWord(into: Buffer, at: number, value: number): void {
  into.writeUInt32LE(value % 2 ** 32, at);
  into.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4);
}

/** Null where the system has no such calls. */
function find(): Calls | null {
  if (process.platform !== 'linux') return null;
  try {
    const libc = koffi.load(null);
    return {
      preadv2: libc.func('int64_t preadv2(int fd, uintptr_t iov, int n, int64_t offset, int flags)'),
      send: libc.func('int64_t send(int fd, uintptr_t bytes, size_t n, int flags)'),
      setsockopt: libc.func('int setsockopt(int fd, int level, int name, void *value, uint32_t bytes)'),
      madvise: libc.func('int madvise(uintptr_t address, size_t bytes, int advice)'),
      posix_fadvise: libc.func('int posix_fadvise(int fd, int64_t from, int64_t bytes, int advice)'),
    };
  } catch {
    return null;
  }
}
