// Framing on the two sockets: replies come in frames with a length before each, everything else is a line of JSON.

export const LINE_CHARS_MAX = 8 * 2 ** 20;
/** Before each frame: how many bytes it has, and whether it is the last of its answer. */
export const FRAME_HEAD_BYTES = 4;
const LAST_FRAME = 2 ** 31;
/** Of any frame; bytes come in smaller ones, and a head is a key and two messages' fields. */
const FRAME_BYTES_MAX = 8 * 2 ** 20;

export function frameHead(bytes: number, last: boolean): Buffer {
  const head = Buffer.allocUnsafe(FRAME_HEAD_BYTES);
  head.writeUInt32LE(last ? LAST_FRAME + bytes : bytes);
  return head;
}

/** Throws where no frame of ours begins so. */
export function readFrameHead(head: Buffer): { readonly bytes: number; readonly last: boolean } {
  const word = head.readUInt32LE();
  const bytes = word % LAST_FRAME;
  if (bytes > FRAME_BYTES_MAX) throw new Error(`a frame of ${bytes} bytes`);
  return { bytes, last: word >= LAST_FRAME };
}

/** Splits a stream of text into lines, bounded. */
export function lineSplitter(onLine: (line: string) => void): (chunk: string) => void {
  let rest = '';
  return (chunk) => {
    rest += chunk;
    if (rest.length > LINE_CHARS_MAX) throw new Error(`a line of more than ${LINE_CHARS_MAX} characters`);
    const lines = rest.split('\n');
    rest = lines.pop()!;
    for (const line of lines) onLine(line);
  };
}
