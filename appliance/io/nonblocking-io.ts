// System calls that Node lacks, made through libc. Reads and sends that never block: preadv2 with RWF_NOWAIT reads bytes that are
// in the page cache, send with MSG_DONTWAIT writes as much as fits into the socket's buffer. Also huge pages (madvise), a bound on
// unsent bytes (TCP_NOTSENT_LOWAT) and dropping a file from the page cache (posix_fadvise).

import koffi, { type KoffiFunc } from 'koffi';

const RWF_NOWAIT = 0x8;
const POSIX_FADV_RANDOM = 1;
const POSIX_FADV_DONTNEED = 4;
const MADV_HUGEPAGE = 14;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const IPPROTO_TCP = 6;
const TCP_NOTSENT_LOWAT = 25;
const IOVEC_BYTES = 16;

export const PAGE_BYTES = 4_096;
export const HUGE_PAGE_BYTES = 2 ** 21;

/** Not in the page cache, or the system or file system cannot tell: the read would block. */
export const WOULD_BLOCK = -1;

interface Libc {
  readonly preadv2: (fd: number, vector: number, count: number, position: number, flags: number) => number;
  readonly send: (fd: number, bytes: number, count: number, flags: number) => number;
  readonly setsockopt: (fd: number, level: number, name: number, value: Buffer, bytes: number) => number;
  readonly madvise: (address: number, bytes: number, advice: number) => number;
  readonly posix_fadvise: KoffiFunc<(fd: number, from: number, bytes: number, advice: number) => number>;
}

const libc = loadLibc();

/** A buffer with its address, which is looked up once because V8 never moves the memory of a buffer. */
export class NativeBuffer {
  readonly buffer: Buffer;
  readonly address: number;
  /** The iovec of the next read. */
  readonly #vector = Buffer.allocUnsafeSlow(IOVEC_BYTES);
  readonly #vectorAddress: number;

  constructor(buffer: Buffer) {
    this.buffer = buffer;
    this.address = addressOf(buffer);
    this.#vectorAddress = addressOf(this.#vector);
  }

  /** Bytes read to `to.at`, which may be fewer than `to.bytes`; 0 at the end of the file; or `WOULD_BLOCK`. */
  readNonblocking(fd: number, to: { readonly at: number; readonly bytes: number }, position: number): number {
    if (libc === null) return WOULD_BLOCK;
    const { at, bytes } = to;
    if (at < 0 || bytes < 0 || at + bytes > this.buffer.length) throw new RangeError(`no ${bytes} bytes at ${at}`);
    writeWord(this.#vector, 0, this.address + at);
    writeWord(this.#vector, 8, bytes);
    // Any other error is reported by the blocking read that follows.
    return Math.max(WOULD_BLOCK, libc.preadv2(fd, this.#vectorAddress, 1, position, RWF_NOWAIT));
  }

  /** How many of the bytes [from, to) the socket took, perhaps none. Errors are reported by the ordinary write that follows. */
  sendNonblocking(fd: number, from: number, to: number): number {
    if (libc === null) return 0;
    if (from < 0 || to < from || to > this.buffer.length) throw new RangeError(`no bytes from ${from} to ${to}`);
    return Math.max(0, libc.send(fd, this.address + from, to - from, MSG_DONTWAIT | MSG_NOSIGNAL));
  }
}

/** A buffer in one huge page where the system has them: contiguous physical memory makes better use of the CPU's cache. */
export function allocateHugePage(): Buffer {
  const page = alignedBuffer(HUGE_PAGE_BYTES, HUGE_PAGE_BYTES);
  libc?.madvise(addressOf(page), HUGE_PAGE_BYTES, MADV_HUGEPAGE);
  return page;
}

/** A buffer that begins at a multiple of `alignment`, which for reads that bypass the page cache is a page. */
export function alignedBuffer(bytes: number, alignment = PAGE_BYTES): Buffer {
  const unaligned = Buffer.allocUnsafeSlow(bytes + alignment);
  const at = alignment - (addressOf(unaligned) % alignment);
  return unaligned.subarray(at, at + bytes);
}

/** Bounds the unsent bytes that the kernel buffers for a socket, where it supports that. 0 restores its default. */
export function setUnsentLimit(fd: number, bytes: number): void {
  const value = Buffer.alloc(4);
  value.writeInt32LE(bytes);
  libc?.setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, value, value.length);
}

/**
 * A read of the file brings what it asks for and nothing beside it, where the system supports that: pages read ahead would be
 * served later without anybody having looked at them.
 */
export function readOnlyWhatIsAsked(fd: number): void {
  libc?.posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
}

/**
 * Drops the pages of a file that are already on disk from the page cache, where the system supports it. It runs in the thread
 * pool: for pages read a moment ago the call waits until every core has drained its per-CPU lists.
 */
export function dropPages(fd: number): Promise<void> {
  return new Promise((resolve) => {
    if (libc === null) resolve();
    else libc.posix_fadvise.async(fd, 0, 0, POSIX_FADV_DONTNEED, () => resolve());
  });
}

export const addressOf = (buffer: Buffer): number => (libc === null ? 0 : Number(koffi.address(buffer)));

/** Writes a 64-bit word. Addresses have 48 bits, which a double holds exactly. */
export function writeWord(into: Buffer, at: number, value: number): void {
  into.writeUInt32LE(value % 2 ** 32, at);
  into.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4);
}

/** Null where the system lacks one of these calls. */
function loadLibc(): Libc | null {
  if (process.platform !== 'linux') return null;
  try {
    const library = koffi.load(null);
    return {
      preadv2: library.func('int64_t preadv2(int fd, uintptr_t iov, int n, int64_t offset, int flags)'),
      send: library.func('int64_t send(int fd, uintptr_t bytes, size_t n, int flags)'),
      setsockopt: library.func('int setsockopt(int fd, int level, int name, void *value, uint32_t bytes)'),
      madvise: library.func('int madvise(uintptr_t address, size_t bytes, int advice)'),
      posix_fadvise: library.func('int posix_fadvise(int fd, int64_t from, int64_t bytes, int advice)'),
    };
  } catch {
    return null;
  }
}
