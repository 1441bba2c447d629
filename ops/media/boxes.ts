// Parses the ISO BMFF boxes of an MP4 with one track, as far as playlists and manifests need them. Byte ranges, durations and
// codecs in the manifests are therefore those of the files that ffmpeg wrote, not those that were requested.

export interface Track {
  timescale: number;
  codec: string; // in the notation of RFC 6381
}

/** The timescale and codec of the only track of a file. */
export function track(file: Buffer): Track {
  const media = find(file, 'moov', 'trak', 'mdia');
  const mdhd = find(media, 'mdhd');
  const entry = boxes(find(media, 'minf', 'stbl', 'stsd').subarray(8))[0];
  const codec = entry?.type === 'avc1' ? `avc1.${find(entry.body.subarray(78), 'avcC').toString('hex', 1, 4)}` : 'mp4a.40.2';
  return { timescale: mdhd.readUInt32BE(mdhd[0] === 1 ? 20 : 12), codec };
}

export interface Fragment {
  at: number; // offset of the moof in the file
  start: number; // decode time, in the track's timescale
  duration: number;
  firstSampleEnd: number; // offset in the file at which the first sample ends
}

/** The movie fragments of a file with one track, from tfhd, tfdt and trun (ISO/IEC 14496-12, 8.8). */
export function fragments(file: Buffer): Fragment[] {
  return boxes(file).filter((b) => b.type === 'moof').map((moof) => {
    const tfhd = find(moof.body, 'traf', 'tfhd');
    const tfdt = find(moof.body, 'traf', 'tfdt');
    const trun = find(moof.body, 'traf', 'trun');
    const has = tfhd.readUIntBE(1, 3);
    let at = 8 + (has & 1 ? 8 : 0) + (has & 2 ? 4 : 0);
    let duration = has & 8 ? tfhd.readUInt32BE(at) : 0;
    at += has & 8 ? 4 : 0;
    let size = has & 16 ? tfhd.readUInt32BE(at) : 0;
    const flags = trun.readUIntBE(1, 3);
    const count = trun.readUInt32BE(4);
    const dataOffset = trun.readInt32BE(8);
    at = 12 + (flags & 4 ? 4 : 0);
    let total = 0;
    let first = 0;
    for (let i = 0; i < count; i++) {
      if (flags & 0x100) { duration = trun.readUInt32BE(at); at += 4; }
      if (flags & 0x200) { size = trun.readUInt32BE(at); at += 4; }
      at += (flags & 0x400 ? 4 : 0) + (flags & 0x800 ? 4 : 0);
      total += duration;
      if (i === 0) first = size;
    }
    const start = tfdt[0] === 1 ? Number(tfdt.readBigUInt64BE(4)) : tfdt.readUInt32BE(4);
    return { at: moof.at, start, duration: total, firstSampleEnd: moof.at + dataOffset + first };
  });
}

export interface SegmentIndex {
  init: number; // bytes of ftyp and moov
  from: number; // offset of the first byte of the sidx
  to: number; // offset of its last byte
  segments: { at: number; bytes: number; seconds: number }[];
}

/** Parses the only global sidx of a file (ISO/IEC 14496-12, 8.16.3). `name` appears in errors. */
export function segmentIndex(file: Buffer, name: string): SegmentIndex {
  const top = boxes(file);
  const moov = top.find((b) => b.type === 'moov');
  if (moov === undefined) throw new Error(`${name}: no moov box`);
  const [sidx, ...others] = top.filter((b) => b.type === 'sidx');
  if (sidx === undefined || others.length > 0) throw new Error(`${name}: not one sidx`);
  const wide = sidx.body[0] === 1;
  const scale = sidx.body.readUInt32BE(8);
  let p = wide ? 28 : 20;
  let at = sidx.at + sidx.size + (wide ? Number(sidx.body.readBigUInt64BE(20)) : sidx.body.readUInt32BE(16));
  const segments: SegmentIndex['segments'] = [];
  let left = sidx.body.readUInt16BE(p + 2);
  for (p += 4; left > 0; left--, p += 12) {
    const bytes = sidx.body.readUInt32BE(p);
    segments.push({ at, bytes, seconds: sidx.body.readUInt32BE(p + 4) / scale });
    at += bytes;
  }
  if (at !== file.length) throw new Error(`${name}: the index ends at ${at}, the file at ${file.length}`);
  return { init: moov.at + moov.size, from: sidx.at, to: sidx.at + sidx.size - 1, segments };
}

interface Box {
  type: string;
  at: number;
  size: number;
  body: Buffer;
}

/** The ISO BMFF boxes at the top level of a buffer. */
function boxes(data: Buffer): Box[] {
  const found: Box[] = [];
  for (let at = 0; at + 8 <= data.length; ) {
    const size = data.readUInt32BE(at);
    if (size < 8) throw new Error(`box of ${size} bytes at ${at}`);
    found.push({ type: data.toString('latin1', at + 4, at + 8), at, size, body: data.subarray(at + 8, at + size) });
    at += size;
  }
  return found;
}

/** The body of the box at a path of types. */
function find(data: Buffer, ...path: string[]): Buffer {
  for (const type of path) {
    const box = boxes(data).find((b) => b.type === type);
    if (box === undefined) throw new Error(`no ${path.join('/')} box`);
    data = box.body;
  }
  return data;
}
