// A plain connection as the short way has it: what comes is read into one buffer that all connections of a worker share, and
// what goes is offered to the system on the spot, so that a request answered at once leaves no buffer and no write request behind.
//
// Node gives a socket a buffer of ours (`onread`) only when it makes it, and the supervisor's are made when they arrive here;
// it names no descriptor either. So the handle below the socket moves to a socket made for it. Where there is no such handle
// (TLS has another, a later Node may hide it) the socket stays as it is, and all goes by its stream.

import { Socket, type OnReadOpts, type SocketConstructorOpts } from 'node:net';
import { setUnsentLimit, type NativeBuffer } from '../io/nonblocking-io.ts';

const READ_BYTES = 65_536;
/**
 * What the system holds for a slow reader beyond what it may send is of no use to him: an audience of 5,000 took a tenth less of the CPU
 * with it than with as much as the system likes, a mebibyte at times. A fast one lost 4 % at 1 MiB and 7 % at 4 MiB, so it is lifted for him.
 */
const UNSENT_BYTES = 65_536;

/** What Node keeps below a plain socket. */
interface Handle {
  readonly fd: number;
  readonly useUserBuffer: unknown;
}

/** What came: the first `bytes` of a buffer that is not the hearer's. */
type Heard = (buffer: Buffer, bytes: number) => void;

let shared: Buffer | null = null;

export class DirectSocket {
  /** Half open where its peer has said everything: whoever has asked may still be answered. */
  readonly stream: Socket;
  /** -1 where the stream alone may write. */
  readonly #fd: number;
  #limited = true;

  constructor(received: Socket, heard: Heard) {
    const handle = plainHandleOf(received);
    this.#fd = handle?.fd ?? -1;
    this.stream = handle === null ? received : moved(received, handle, heard);
    if (handle !== null) {
      setUnsentLimit(this.#fd, UNSENT_BYTES);
      return;
    }
    received.allowHalfOpen = true;
    received.on('data', (chunk: Buffer) => heard(chunk, chunk.length));
  }

  /** Whether the system is to hold no more than it can send and a little. */
  limit(limited: boolean): void {
    if (limited === this.#limited || this.#fd === -1 || this.stream.destroyed) return;
    this.#limited = limited;
    setUnsentLimit(this.#fd, limited ? UNSENT_BYTES : 0);
  }

  /** Writes the bytes [from, to). True where the system has taken them all; else `done` is called when it has, or never will. */
  write(memory: NativeBuffer, from: number, to: number, done: (error?: Error | null) => void): boolean {
    let at = from;
    if (this.#fd !== -1 && this.stream.writableLength === 0 && !this.stream.destroyed)
      at += memory.sendNonblocking(this.#fd, from, to);
    if (at === to) return true;
    this.stream.write(memory.buffer.subarray(at, to), done);
    return false;
  }
}

/** A socket that has the handle of another, which is left without. */
function moved(from: Socket, handle: Handle, heard: Heard): Socket {
  shared ??= Buffer.allocUnsafeSlow(READ_BYTES);
  const options: SocketConstructorOpts & { handle: Handle; onread: OnReadOpts } = {
    handle,
    readable: true,
    writable: true,
    allowHalfOpen: true,
    onread: {
      buffer: shared,
      callback: (bytes, buffer) => {
        heard(buffer as Buffer, bytes);
        return true;
      },
    },
  };
  const socket = new Socket(options);
  Object.assign(from, { _handle: null });
  from.destroy();
  return socket;
}

function plainHandleOf(socket: Socket): Handle | null {
  if (!(socket instanceof Socket) || 'encrypted' in socket) return null;
  const handle = (socket as unknown as { readonly _handle?: Partial<Handle> | null })._handle;
  if (typeof handle?.useUserBuffer !== 'function' || typeof handle.fd !== 'number' || handle.fd < 0) return null;
  return handle as Handle;
}
