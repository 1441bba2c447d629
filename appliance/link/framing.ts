// Framing on the two sockets: replies come in frames with a length in front, everything else is a line of JSON.

const LINE_CHARS_MAX = 8 * 2 ** 20;
/** The largest frame is a head: a key and the header fields of two messages. Frames of bytes are smaller. */
const FRAME_BYTES_MAX = 8 * 2 ** 20;

/** Four bytes, little-endian: the length of the frame, and the top bit for the last frame of a reply. */
export const FRAME_HEAD_BYTES = 4;
const LAST_FRAME = 2 ** 31;

export function frameHead(bytes: number, last: boolean): Buffer {
  const head = Buffer.allocUnsafe(FRAME_HEAD_BYTES);
  head.writeUInt32LE(last ? LAST_FRAME + bytes : bytes);
  return head;
}

/** Throws when the length is beyond the maximum. */
export function readFrameHead(head: Buffer): { readonly bytes: number; readonly last: boolean } {
  const word = head.readUInt32LE();
  const bytes = word % LAST_FRAME;
  if (bytes > FRAME_BYTES_MAX) throw new Error(`a frame of ${bytes} bytes`);
  return { bytes, last: word >= LAST_FRAME };
}

/** Splits a stream of text into lines of bounded length. */
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
