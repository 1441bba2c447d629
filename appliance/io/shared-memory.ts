// Memory that one process writes and others read: an anonymous file (memfd) that its owner maps writable and the others map read-only,
// by its path below /proc. What is not on Linux, or lacks one of the calls, has none.
//
// Nothing here is synchronised. Who writes must know that nobody reads there: see store/memory-tier.ts.

import { closeSync, fstatSync, openSync } from 'node:fs';
import koffi from 'koffi';
import { addressOf, HUGE_PAGE_BYTES, PAGE_BYTES, writeWord, type NativeBuffer } from './nonblocking-io.ts';

const MFD_CLOEXEC = 1;
const PROT_READ = 1;
const PROT_WRITE = 2;
const PROT_NONE = 0;
const MAP_SHARED = 1;
const MAP_PRIVATE = 2;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MADV_COLLAPSE = 25;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
/** struct msghdr of 64-bit Linux: name, namelen, iov, iovlen, control, controllen, flags. */
const MSGHDR_BYTES = 56;
const MSGHDR_IOV_AT = 16;
const MSGHDR_IOVLEN_AT = 24;
const IOVEC_BYTES = 16;
const IOVECS_MAX = 16;

interface Libc {
  readonly memfd_create: (name: string, flags: number) => number;
  readonly ftruncate: (fd: number, bytes: number) => number;
  readonly mmap: (
    at: number,
    bytes: number,
    protection: number,
    flags: number,
    fd: number,
    offset: number,
  ) => number | bigint;
  readonly munmap: (address: number, bytes: number) => number;
  readonly madvise: (address: number, bytes: number, advice: number) => number;
  readonly memcpy: (to: number, from: number, bytes: number) => void;
  readonly sendmsg: (fd: number, message: number, flags: number) => number;
}

let libc: Libc | null | undefined;

/** Where others find it, and how they know that it is this one: numbers of processes and descriptors are used again. */
export interface MemoryName {
  readonly path: string;
  readonly bytes: number;
  readonly inode: string;
}

/** Memory of this process that others may map. */
export class OwnedMemory {
  readonly name: MemoryName;
  readonly bytes: number;
  readonly #address: number;
  #collapsedTo = 0;

  private constructor(fd: number, bytes: number, address: number) {
    this.name = { path: `/proc/${process.pid}/fd/${fd}`, bytes, inode: inodeOf(fd) };
    this.bytes = bytes;
    this.#address = address;
  }

  /** Null where the system has no such memory. Pages take memory once they are written. */
  static create(bytes: number): OwnedMemory | null {
    const calls = (libc ??= loadLibc());
    if (calls === null) return null;
    const fd = calls.memfd_create('larder-memory', MFD_CLOEXEC);
    if (fd < 0) return null;
    const address = calls.ftruncate(fd, bytes) === 0 ? map(calls, fd, bytes, PROT_READ | PROT_WRITE) : null;
    if (address !== null) return new OwnedMemory(fd, bytes, address);
    closeSync(fd);
    return null;
  }

  write(at: number, from: Buffer): void {
    if (at < 0 || at + from.length > this.bytes) throw new RangeError(`no ${from.length} bytes at ${at}`);
    libc!.memcpy(this.#address + at, addressOf(from), from.length);
    this.#collapse(at + from.length);
  }

  /** Makes huge pages of what has been written up to here: the kernel makes none of such memory before it is full. */
  #collapse(writtenTo: number): void {
    for (; this.#collapsedTo + HUGE_PAGE_BYTES <= writtenTo; this.#collapsedTo += HUGE_PAGE_BYTES)
      libc!.madvise(this.#address + this.#collapsedTo, HUGE_PAGE_BYTES, MADV_COLLAPSE);
  }
}

/** Bytes of a mapped memory, in order. */
export interface MemorySlice {
  readonly at: number;
  readonly bytes: number;
}

/** Bytes of a buffer that are sent before the slices. */
export interface SentHead {
  readonly memory: NativeBuffer;
  readonly from: number;
  readonly to: number;
}

/** Memory of another process, mapped read-only. It stays as long as it is mapped, also when its owner has ended. */
export class MappedMemory {
  readonly bytes: number;
  readonly #address: number;
  readonly #iovecs = Buffer.alloc(IOVECS_MAX * IOVEC_BYTES);
  readonly #message = Buffer.alloc(MSGHDR_BYTES);
  readonly #messageAddress: number;

  private constructor(bytes: number, address: number) {
    this.bytes = bytes;
    this.#address = address;
    this.#messageAddress = addressOf(this.#message);
    writeWord(this.#message, MSGHDR_IOV_AT, addressOf(this.#iovecs));
  }

  /** Null if it cannot be mapped, because its owner has ended or the system refuses. */
  static open({ path, bytes, inode }: MemoryName): MappedMemory | null {
    const calls = (libc ??= loadLibc());
    if (calls === null) return null;
    let fd: number;
    try {
      fd = openSync(path, 'r');
    } catch {
      return null;
    }
    const address = inodeOf(fd) === inode ? map(calls, fd, bytes, PROT_READ) : null;
    closeSync(fd);
    return address === null ? null : new MappedMemory(bytes, address);
  }

  copy({ at, bytes }: MemorySlice, into: NativeBuffer, intoAt: number): void {
    this.#checkBounds(at, bytes);
    if (intoAt < 0 || intoAt + bytes > into.buffer.length) throw new RangeError(`no room for ${bytes} bytes`);
    libc!.memcpy(into.address + intoAt, this.#address + at, bytes);
  }

  /**
   * Sends bytes [from, to) of the buffer and then the slices, and returns how many of all of them the socket took, perhaps none.
   * Errors are reported by the ordinary write that follows. Slices beyond the first few are left for the next call.
   */
  sendNonblocking(fd: number, head: SentHead | null, slices: readonly MemorySlice[]): number {
    let vectors = 0;
    if (head !== null) {
      this.#setVector(0, head.memory.address + head.from, head.to - head.from);
      vectors = 1;
    }
    for (const { at, bytes } of slices) {
      if (vectors === IOVECS_MAX) break;
      this.#checkBounds(at, bytes);
      this.#setVector(vectors, this.#address + at, bytes);
      vectors += 1;
    }
    writeWord(this.#message, MSGHDR_IOVLEN_AT, vectors);
    return Math.max(0, libc!.sendmsg(fd, this.#messageAddress, MSG_DONTWAIT | MSG_NOSIGNAL));
  }

  unmap(): void {
    libc!.munmap(this.#address, this.bytes);
  }

  #setVector(at: number, address: number, bytes: number): void {
    writeWord(this.#iovecs, at * IOVEC_BYTES, address);
    writeWord(this.#iovecs, at * IOVEC_BYTES + 8, bytes);
  }

  #checkBounds(at: number, bytes: number): void {
    if (at < 0 || bytes < 0 || at + bytes > this.bytes) throw new RangeError(`no ${bytes} bytes at ${at}`);
  }
}

/** Maps at a multiple of a huge page, for only there the kernel can use one. */
function map(calls: Libc, fd: number, bytes: number, protection: number): number | null {
  const reserved = Number(calls.mmap(0, bytes + HUGE_PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (!isAddress(reserved)) return null;
  const aligned = Math.ceil(reserved / HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES;
  const address = Number(calls.mmap(aligned, bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0));
  const end = reserved + bytes + HUGE_PAGE_BYTES;
  if (!isAddress(address)) {
    calls.munmap(reserved, end - reserved);
    return null;
  }
  if (aligned > reserved) calls.munmap(reserved, aligned - reserved);
  const mappedEnd = aligned + Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
  if (end > mappedEnd) calls.munmap(mappedEnd, end - mappedEnd);
  return address;
}

function inodeOf(fd: number): string {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  return `${dev}:${ino}`;
}

/** MAP_FAILED is the highest address. */
const isAddress = (address: number): boolean => address > 0 && address < 2 ** 48;

function loadLibc(): Libc | null {
  if (process.platform !== 'linux') return null;
  try {
    const library = koffi.load(null);
    return {
      memfd_create: library.func('int memfd_create(const char *name, uint32_t flags)'),
      ftruncate: library.func('int ftruncate(int fd, int64_t bytes)'),
      mmap: library.func('uintptr_t mmap(uintptr_t at, size_t n, int protection, int flags, int fd, int64_t offset)'),
      munmap: library.func('int munmap(uintptr_t at, size_t n)'),
      madvise: library.func('int madvise(uintptr_t address, size_t n, int advice)'),
      memcpy: library.func('void memcpy(uintptr_t to, uintptr_t from, size_t n)'),
      sendmsg: library.func('int64_t sendmsg(int fd, uintptr_t message, int flags)'),
    };
  } catch {
    return null;
  }
}
