// The socket of a plain connection, with less overhead than Node's: all connections of a worker read into one shared buffer,
// and a write is first tried directly on the file descriptor, so that a request answered at once allocates neither a buffer
// nor a write request.
//
// Node takes a read buffer (`onread`) only when it creates a socket, and the sockets from the supervisor are created on
// arrival. It exposes no file descriptor either. So the handle of the accepted socket is moved to a socket created here.
// Where there is no such handle (TLS uses another kind, a later Node may hide it) everything goes through the stream.

import { Socket, type OnReadOpts, type SocketConstructorOpts } from 'node:net';
import { setUnsentLimit, type NativeBuffer } from '../io/nonblocking-io.ts';
import type { MappedMemory, MemorySlice, SentHead } from '../io/shared-memory.ts';
import { LIMITS } from '../limits.ts';

const READ_BYTES = 65_536;

/** The part of Node's internal TCP handle that is used here. */
interface TcpHandle {
  readonly fd: number;
  readonly useUserBuffer: unknown;
}

/** The first `bytes` of the buffer were received. The next read overwrites them. */
type OnData = (buffer: Buffer, bytes: number) => void;

let sharedReadBuffer: Buffer | null = null;

export class DirectSocket {
  /** Half-open: a client that has closed its side may still be answered. */
  readonly stream: Socket;
  /** -1 if only the stream can write. */
  readonly #fd: number;
  #isUnsentLimited = true;

  constructor(accepted: Socket, onData: OnData) {
    const handle = tcpHandleOf(accepted);
    this.#fd = handle?.fd ?? -1;
    this.stream = handle === null ? accepted : moveHandle(accepted, handle, onData);
    if (handle !== null) {
      setUnsentLimit(this.#fd, LIMITS.unsentBytesMax);
      return;
    }
    accepted.allowHalfOpen = true;
    accepted.on('data', (chunk: Buffer) => onData(chunk, chunk.length));
  }

  /** Sets or lifts the limit of unsent bytes in the kernel. */
  limitUnsent(isLimited: boolean): void {
    if (isLimited === this.#isUnsentLimited || this.#fd === -1 || this.stream.destroyed) return;
    this.#isUnsentLimited = isLimited;
    setUnsentLimit(this.#fd, isLimited ? LIMITS.unsentBytesMax : 0);
  }

  /**
   * Closes the connection in a way that no client takes for the end of a response: a body without a length would end at a plain close.
   * Over TLS the missing close_notify says the same.
   */
  reset(): void {
    if (this.#fd === -1) this.stream.destroy();
    else this.stream.resetAndDestroy();
  }

  /** Whether bytes can be sent from the memory tier: only the stream can encrypt. */
  get isDirect(): boolean {
    return this.#fd !== -1;
  }

  /** How many bytes of the head and the slices the kernel has taken, perhaps none. The caller writes the rest, or a part of it, to the stream. */
  sendFrom(memory: MappedMemory, head: SentHead | null, slices: readonly MemorySlice[]): number {
    if (this.stream.writableLength > 0 || this.stream.destroyed) return 0;
    return memory.sendNonblocking(this.#fd, head, slices);
  }

  /**
   * Writes the bytes [from, to). True if the kernel has taken all of them. Otherwise the stream holds the rest, and `callback`
   * is called when that is written or has failed.
   */
  write(memory: NativeBuffer, from: number, to: number, callback: (error?: Error | null) => void): boolean {
    let at = from;
    if (this.#fd !== -1 && this.stream.writableLength === 0 && !this.stream.destroyed)
      at += memory.sendNonblocking(this.#fd, from, to);
    if (at === to) return true;
    this.stream.write(memory.buffer.subarray(at, to), callback);
    return false;
  }
}

/** A new socket with the handle of `from`, which is destroyed without it. */
function moveHandle(from: Socket, handle: TcpHandle, onData: OnData): Socket {
  sharedReadBuffer ??= Buffer.allocUnsafeSlow(READ_BYTES);
  const options: SocketConstructorOpts & { handle: TcpHandle; onread: OnReadOpts } = {
    handle,
    readable: true,
    writable: true,
    allowHalfOpen: true,
    onread: {
      buffer: sharedReadBuffer,
      callback: (bytes, buffer) => {
        onData(buffer as Buffer, bytes);
        return true;
      },
    },
  };
  const socket = new Socket(options);
  Object.assign(from, { _handle: null });
  from.destroy();
  return socket;
}

/** Null if the connection has no plain TCP handle. */
function tcpHandleOf(socket: Socket): TcpHandle | null {
  if (!(socket instanceof Socket) || 'encrypted' in socket) return null;
  const handle = (socket as unknown as { readonly _handle?: Partial<TcpHandle> | null })._handle;
  if (typeof handle?.useUserBuffer !== 'function' || typeof handle.fd !== 'number' || handle.fd < 0) return null;
  return handle as TcpHandle;
}
