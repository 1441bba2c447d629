// Framing on the two sockets: replies come in frames with a length in front, everything else is a line of JSON.

import type { SlotSlice } from '../io/shared-memory.ts';

const LINE_CHARS_MAX = 8 * 2 ** 20;
/** The largest frame is a head: a key and the header fields of two messages. Frames of bytes are smaller. */
const FRAME_BYTES_MAX = 8 * 2 ** 20;

/** Four bytes, little-endian: the length of the frame, and two bits that say what it is. */
export const FRAME_HEAD_BYTES = 4;
/** The last of a reply. */
const LAST_FRAME = 2 ** 31;
/** It says where bytes are, instead of having them. */
const SLICES_FRAME = 2 ** 30;

export interface FrameHead {
  readonly bytes: number;
  readonly isLast: boolean;
  readonly hasSlices: boolean;
}

export function frameHead({ bytes, isLast, hasSlices }: FrameHead): Buffer {
  const head = Buffer.allocUnsafe(FRAME_HEAD_BYTES);
  head.writeUInt32LE(bytes + (isLast ? LAST_FRAME : 0) + (hasSlices ? SLICES_FRAME : 0));
  return head;
}

/** Throws when the length is beyond the maximum. */
export function readFrameHead(head: Buffer): FrameHead {
  const word = head.readUInt32LE();
  const bytes = word % SLICES_FRAME;
  if (bytes > FRAME_BYTES_MAX) throw new Error(`a frame of ${bytes} bytes`);
  return { bytes, isLast: word >= LAST_FRAME, hasSlices: word % LAST_FRAME >= SLICES_FRAME };
}

/** Four numbers of 32 bits, little-endian. */
const SLICE_BYTES = 16;

export function encodeSlices(slices: readonly SlotSlice[]): Buffer {
  const encoded = Buffer.allocUnsafe(slices.length * SLICE_BYTES);
  for (const [number, { slot, generation, from, bytes }] of slices.entries()) {
    const at = number * SLICE_BYTES;
    encoded.writeUInt32LE(slot, at);
    encoded.writeInt32LE(generation, at + 4);
    encoded.writeUInt32LE(from, at + 8);
    encoded.writeUInt32LE(bytes, at + 12);
  }
  return encoded;
}

export function decodeSlices(encoded: Buffer): SlotSlice[] {
  const slices: SlotSlice[] = [];
  for (let at = 0; at < encoded.length; at += SLICE_BYTES)
    slices.push({
      slot: encoded.readUInt32LE(at),
      generation: encoded.readInt32LE(at + 4),
      from: encoded.readUInt32LE(at + 8),
      bytes: encoded.readUInt32LE(at + 12),
    });
  return slices;
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
