// Memory that one process writes and others read: an anonymous file (memfd) that its owner maps writable and the others map read-only,
// by its path below /proc. What is not on Linux, or lacks one of the calls, has none.
//
// It is divided into slots, and a table behind them has a generation for each, which its owner advances before it writes other bytes
// there. A reader that copies a slot and then finds the generation that it was told has copied the right bytes. One that sends from a
// slot cannot look again: it must know that nobody writes there (store/memory-tier.ts).

import { closeSync, fstatSync, openSync } from 'node:fs';
import koffi from 'koffi';
import { addressOf, writeWord, type NativeBuffer } from './nonblocking-io.ts';

const MFD_CLOEXEC = 1;
const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
/** struct msghdr of 64-bit Linux: name, namelen, iov, iovlen, control, controllen, flags. */
const MSGHDR_BYTES = 56;
const MSGHDR_IOV_AT = 16;
const MSGHDR_IOVLEN_AT = 24;
const IOVEC_BYTES = 16;
const IOVECS_MAX = 16;
/** Node 20 aborts on a view of more than 4 GiB. */
const VIEW_BYTES_MAX = 2 ** 30;
const GENERATION_BYTES = 4;
const UNMAP_BYTES = 2 ** 28;

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
  readonly memcpy: (to: number, from: number, bytes: number) => void;
  readonly sendmsg: (fd: number, message: number, flags: number) => number;
}

let libc: Libc | null | undefined;

export interface MemoryShape {
  readonly slots: number;
  readonly slotBytes: number;
}

/** Where others find it, and how they know that it is this one: numbers of processes and descriptors are used again. */
export interface MemoryName extends MemoryShape {
  readonly path: string;
  readonly inode: string;
}

/** Memory of this process that others may map. */
export class OwnedMemory {
  readonly name: MemoryName;
  readonly #address: number;
  readonly #generations: Int32Array;
  /** Of the slots, each over as many bytes as a view may have. */
  readonly #views: Buffer[] = [];

  private constructor(fd: number, shape: MemoryShape, address: number) {
    this.name = { path: `/proc/${process.pid}/fd/${fd}`, inode: inodeOf(fd), ...shape };
    this.#address = address;
    this.#generations = generationsAt(address, shape);
  }

  /** Null where the system has no such memory. Pages take memory once they are written. */
  static create(shape: MemoryShape): OwnedMemory | null {
    const calls = (libc ??= loadLibc());
    if (calls === null) return null;
    const fd = calls.memfd_create('larder-memory', MFD_CLOEXEC);
    if (fd < 0) return null;
    const bytes = fileBytes(shape);
    const address = calls.ftruncate(fd, bytes) === 0 ? map(calls, fd, bytes, PROT_READ | PROT_WRITE) : null;
    if (address !== null) return new OwnedMemory(fd, shape, address);
    closeSync(fd);
    return null;
  }

  get slots(): number {
    return this.name.slots;
  }

  /** The bytes of a slot. */
  slot(slot: number): Buffer {
    const { slots, slotBytes } = this.name;
    if (slot < 0 || slot >= slots) throw new RangeError(`no slot ${slot}`);
    const at = slot * slotBytes;
    const start = at - (at % VIEW_BYTES_MAX);
    const view = (this.#views[start / VIEW_BYTES_MAX] ??= viewAt(
      this.#address + start,
      Math.min(VIEW_BYTES_MAX, slots * slotBytes - start),
    ));
    return view.subarray(at - start, at - start + slotBytes);
  }

  generation(slot: number): number {
    return Atomics.load(this.#generations, slot);
  }

  /** To be called before other bytes are written to a slot: who copies from it notices. Returns the new generation. */
  renew(slot: number): number {
    return (Atomics.add(this.#generations, slot, 1) + 1) | 0;
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

/** Bytes of one slot, in the generation in which they are right. */
export interface SlotSlice {
  readonly slot: number;
  readonly generation: number;
  readonly from: number;
  readonly bytes: number;
}

/** Memory of another process, mapped read-only. It stays as long as it is mapped, also when its owner has ended. */
export class MappedMemory {
  readonly name: MemoryName;
  readonly #bytes: number;
  readonly #address: number;
  readonly #generations: Int32Array;
  #isMapped = true;
  readonly #iovecs = Buffer.alloc(IOVECS_MAX * IOVEC_BYTES);
  readonly #message = Buffer.alloc(MSGHDR_BYTES);
  readonly #messageAddress: number;

  private constructor(name: MemoryName, address: number) {
    this.name = name;
    this.#bytes = name.slots * name.slotBytes;
    this.#address = address;
    this.#generations = generationsAt(address, name);
    this.#messageAddress = addressOf(this.#message);
    writeWord(this.#message, MSGHDR_IOV_AT, addressOf(this.#iovecs));
  }

  /** Null if it cannot be mapped, because its owner has ended or the system refuses. */
  static open(name: MemoryName): MappedMemory | null {
    const calls = (libc ??= loadLibc());
    if (calls === null) return null;
    let fd: number;
    try {
      fd = openSync(name.path, 'r');
    } catch {
      return null;
    }
    const address = inodeOf(fd) === name.inode ? map(calls, fd, fileBytes(name), PROT_READ) : null;
    closeSync(fd);
    return address === null ? null : new MappedMemory(name, address);
  }

  /** Copies bytes of a slot. False if they are, or may be, no longer those of that generation. */
  copySlot({ slot, generation, from, bytes }: SlotSlice, into: NativeBuffer, intoAt: number): boolean {
    if (!this.#isMapped) return false;
    const { slots, slotBytes } = this.name;
    if (slot >= slots || from + bytes > slotBytes) throw new RangeError(`no ${bytes} bytes at ${from} of slot ${slot}`);
    this.copy({ at: slot * slotBytes + from, bytes }, into, intoAt);
    return Atomics.load(this.#generations, slot) === generation;
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

  /** In pieces, between the turns of the event loop: the last process to unmap frees all pages, which takes 90 ms a gibibyte. */
  unmap(): void {
    this.#isMapped = false;
    const bytes = fileBytes(this.name);
    const unmapFrom = (at: number): void => {
      libc!.munmap(this.#address + at, Math.min(UNMAP_BYTES, bytes - at));
      if (at + UNMAP_BYTES < bytes) setImmediate(unmapFrom, at + UNMAP_BYTES);
    };
    unmapFrom(0);
  }

  #setVector(at: number, address: number, bytes: number): void {
    writeWord(this.#iovecs, at * IOVEC_BYTES, address);
    writeWord(this.#iovecs, at * IOVEC_BYTES + 8, bytes);
  }

  #checkBounds(at: number, bytes: number): void {
    if (at < 0 || bytes < 0 || at + bytes > this.#bytes) throw new RangeError(`no ${bytes} bytes at ${at}`);
  }
}

/** The slots, and the table of their generations. */
const fileBytes = ({ slots, slotBytes }: MemoryShape): number => slots * slotBytes + slots * GENERATION_BYTES;

const viewAt = (address: number, bytes: number): Buffer => Buffer.from(koffi.view(address, bytes));

function generationsAt(address: number, { slots, slotBytes }: MemoryShape): Int32Array {
  return new Int32Array(koffi.view(address + slots * slotBytes, slots * GENERATION_BYTES));
}

function map(calls: Libc, fd: number, bytes: number, protection: number): number | null {
  const address = Number(calls.mmap(0, bytes, protection, MAP_SHARED, fd, 0));
  return isAddress(address) ? address : null;
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
      memcpy: library.func('void memcpy(uintptr_t to, uintptr_t from, size_t n)'),
      sendmsg: library.func('int64_t sendmsg(int fd, uintptr_t message, int flags)'),
    };
  } catch {
    return null;
  }
}
