// The three packagings of the sample titles: CMAF segments (harbor), one indexed file per rendition (meadow), and encrypted MPEG-TS
// (tunnel). ffmpeg cuts the tracks; the results are then parsed and measured for the playlists and manifests. Only the media
// playlists of tunnel are written by ffmpeg.

import { mkdir, readFile, readdir, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type Fragment, fragments, type SegmentIndex, segmentIndex, type Track, track } from './boxes.ts';
import { ffmpeg } from './ffmpeg.ts';
import { audioGroup, audioSet, multivariantPlaylist, mediaPlaylist, mpd, type MeasuredSegment, measureRate, representation, segmentTemplate, type SegmentTiming, variant, videoSet } from './manifests.ts';
import { AUDIO_RATE, type EncodedTracks, type Rendition, type Title } from './title.ts';

// ------------------------------------------------------------------------------------------------ harbor: segments

export async function packSegments(title: Title, made: EncodedTracks, out: string): Promise<void> {
  const video = new Map<string, Segmented>();
  const audio = new Map<string, Segmented>();
  for (const [name, file] of made.video) video.set(name, await cutSegments(title, file, join(out, 'video', name)));
  for (const [language, file] of made.audio) audio.set(language, await cutSegments(title, file, join(out, 'audio', language)));
  const starts = [...video.values()].map((v) => JSON.stringify([v.timescale, v.timeline]));
  if (new Set(starts).size !== 1) throw new Error(`${title.id}: renditions are not aligned`);

  // The subtitles are one WebVTT file: one segment in HLS, one BaseURL in DASH.
  await mkdir(join(out, 'text/en'), { recursive: true });
  const cues = title.subtitles.map((line, i) => `${i + 1}\n${clock(i * 8 + 1)} --> ${clock(i * 8 + 7)}\n${line}\n`);
  const vtt = `WEBVTT\n\n${cues.join('\n')}`;
  await writeFile(join(out, 'text/en/subtitles.vtt'), vtt);
  await writeFile(join(out, 'text/en/index.m3u8'), mediaPlaylist([{ bytes: vtt.length, seconds: title.seconds }], [], () => ['subtitles.vtt']));

  // I-frames of the smallest rendition: from each moof to the end of its first sample.
  const [smallest] = title.renditions as [Rendition];
  const trick: { at: number; segment: MeasuredSegment }[] = [];
  const small = video.get(smallest.name) as Segmented;
  for (const [i, segment] of small.segments.entries()) {
    const [fragment] = fragments(await readFile(join(out, 'video', smallest.name, segmentName(i)))) as [Fragment];
    trick.push({ at: fragment.at, segment: { bytes: fragment.firstSampleEnd - fragment.at, seconds: segment.seconds } });
  }
  await writeFile(join(out, 'video', smallest.name, 'iframes.m3u8'),
    mediaPlaylist(trick.map((t) => t.segment), ['#EXT-X-I-FRAMES-ONLY', '#EXT-X-MAP:URI="init.mp4"'], (i) => [`#EXT-X-BYTERANGE:${trick[i]?.segment.bytes}@${trick[i]?.at}`, segmentName(i)]));
  const trickRate = measureRate(trick.map((t) => t.segment));

  const sounds = [...audio.values()].map((a) => a.segments);
  await writeFile(join(out, 'master.m3u8'), multivariantPlaylist(
    ...[...audio.keys()].map((language, i) => audioGroup(language, `audio/${language}/index.m3u8`, i === 0)),
    '#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="text",NAME="English",LANGUAGE="en",DEFAULT=NO,AUTOSELECT=YES,FORCED=NO,STABLE-RENDITION-ID="text-en",URI="text/en/index.m3u8"',
    '',
    ...title.renditions.flatMap((r) => {
      const v = video.get(r.name) as Segmented;
      return variant(r, `video/${r.name}/index.m3u8`, [v.codec, 'mp4a.40.2'], v.segments, sounds, ['AUDIO="audio"', 'SUBTITLES="text"']);
    }),
    '',
    `#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=${trickRate.peak},AVERAGE-BANDWIDTH=${trickRate.mean},CODECS="${small.codec}",RESOLUTION=${smallest.width}x${smallest.height},STABLE-VARIANT-ID="${smallest.name}-iframes",URI="video/${smallest.name}/iframes.m3u8"`,
  ));

  await writeFile(join(out, 'manifest.mpd'), mpd(title, 'live',
    videoSet(`${segmentTemplate('video', small.timescale, small.timeline)}\n${title.renditions.map((r) => representation(r, video.get(r.name)?.codec ?? '', video.get(r.name)?.segments ?? [])).join('\n')}`),
    ...[...audio].map(([language, a], i) => audioSet(2 + i, language, `${segmentTemplate('audio', a.timescale, a.timeline)}\n      <Representation id="${language}" codecs="${a.codec}" bandwidth="${measureRate(a.segments).peak}" audioSamplingRate="${AUDIO_RATE}"/>`)),
    `    <AdaptationSet id="${2 + audio.size}" contentType="text" mimeType="text/vtt" lang="en">
      <Label>English</Label>
      <Role schemeIdUri="urn:mpeg:dash:role:2011" value="subtitle"/>
      <Representation id="text-en" bandwidth="${measureRate([{ bytes: vtt.length, seconds: title.seconds }]).mean}"><BaseURL>text/en/subtitles.vtt</BaseURL></Representation>
    </AdaptationSet>`));
}

interface Segmented extends Track {
  segments: MeasuredSegment[];
  timeline: SegmentTiming[];
}

/** Cuts an MP4 into CMAF segments, measures them and writes their HLS playlist. */
async function cutSegments(title: Title, file: string, folder: string): Promise<Segmented> {
  await mkdir(folder, { recursive: true });
  await ffmpeg([
    '-i', file, '-c', 'copy', ...adtsToAsc(file), '-f', 'hls', '-hls_segment_type', 'fmp4', '-hls_time', String(title.segmentSeconds), '-hls_list_size', '0', '-start_number', '1',
    '-hls_segment_options', 'movflags=+cmaf', '-hls_fmp4_init_filename', 'init.mp4', '-hls_segment_filename', join(folder, 'seg-%05d.m4s'),
  ], join(folder, 'index.m3u8'), false);
  const { timescale, codec } = track(await readFile(join(folder, 'init.mp4')));
  const names = (await readdir(folder)).filter((name) => name.endsWith('.m4s')).sort();
  const segments: MeasuredSegment[] = [];
  const timeline: SegmentTiming[] = [];
  for (const name of names) {
    const data = await readFile(join(folder, name));
    const [fragment, ...others] = fragments(data);
    if (fragment === undefined || others.length > 0) throw new Error(`${name}: not one fragment`);
    timeline.push({ start: fragment.start, duration: fragment.duration });
    segments.push({ bytes: data.length, seconds: fragment.duration / timescale });
  }
  await writeFile(join(folder, 'index.m3u8'), mediaPlaylist(segments, ['#EXT-X-MAP:URI="init.mp4"'], (i) => [segmentName(i)]));
  return { timescale, codec, segments, timeline };
}

/** ADTS repeats the decoder configuration in every frame; MP4 stores it once. */
const adtsToAsc = (file: string): string[] => (file.endsWith('.aac') ? ['-bsf:a', 'aac_adtstoasc'] : []);

const clock = (seconds: number): string => new Date(seconds * 1000).toISOString().slice(11, 23);
const segmentName = (i: number): string => `seg-${String(i + 1).padStart(5, '0')}.m4s`;

// -------------------------------------------------------------------------------------------- meadow: byte ranges

export async function packRanges(title: Title, made: EncodedTracks, out: string): Promise<void> {
  await mkdir(join(out, 'video'), { recursive: true });
  await mkdir(join(out, 'audio'), { recursive: true });
  const video = new Map<string, Indexed>();
  const audio = new Map<string, Indexed>();
  for (const [name, file] of made.video) video.set(name, await writeIndexed(file, join(out, 'video', name), '+frag_keyframe'));
  for (const [language, file] of made.audio) audio.set(language, await writeIndexed(file, join(out, 'audio', language), '', title.segmentSeconds));

  await writeFile(join(out, 'master.m3u8'), multivariantPlaylist(
    ...[...audio.keys()].map((language, i) => audioGroup(language, `audio/${language}.m3u8`, i === 0)),
    '',
    ...title.renditions.flatMap((r) => {
      const v = video.get(r.name) as Indexed;
      return variant(r, `video/${r.name}.m3u8`, [v.codec, 'mp4a.40.2'], v.segments, [...audio.values()].map((a) => a.segments), ['AUDIO="audio"']);
    }),
  ));
  const base = (uri: string, i: Indexed): string =>
    `\n        <BaseURL>${uri}</BaseURL>\n        <SegmentBase timescale="${i.timescale}" indexRange="${i.from}-${i.to}"><Initialization range="0-${i.init - 1}"/></SegmentBase>\n      `;
  await writeFile(join(out, 'manifest.mpd'), mpd(title, 'on-demand',
    videoSet(title.renditions.map((r) => representation(r, video.get(r.name)?.codec ?? '', video.get(r.name)?.segments ?? [], base(`video/${r.name}.mp4`, video.get(r.name) as Indexed))).join('\n')),
    ...[...audio].map(([language, a], i) => audioSet(2 + i, language, `      <Representation id="${language}" codecs="${a.codec}" bandwidth="${measureRate(a.segments).peak}" audioSamplingRate="${AUDIO_RATE}">${base(`audio/${language}.mp4`, a)}</Representation>`))));
}

type Indexed = Track & SegmentIndex;

/** Writes one fragmented MP4 with a global sidx, and the HLS playlist that addresses it by byte range. */
async function writeIndexed(source: string, target: string, cut: string, seconds = 0): Promise<Indexed> {
  await ffmpeg(['-i', source, '-c', 'copy', ...adtsToAsc(source), '-movflags', `${cut}+delay_moov+dash+cmaf+global_sidx+skip_trailer`, ...(seconds > 0 ? ['-frag_duration', String(seconds * 1_000_000)] : [])], `${target}.mp4`);
  const data = await readFile(`${target}.mp4`);
  const index = segmentIndex(data, target);
  const uri = `${target.slice(dirname(target).length + 1)}.mp4`;
  await writeFile(`${target}.m3u8`, mediaPlaylist(index.segments, [`#EXT-X-MAP:URI="${uri}",BYTERANGE="${index.init}@0"`], (i) => [`#EXT-X-BYTERANGE:${index.segments[i]?.bytes}@${index.segments[i]?.at}`, uri]));
  return { ...track(data), ...index };
}

// ------------------------------------------------------------------------------------------- tunnel: encrypted TS

export async function packTransport(title: Title, made: EncodedTracks, out: string): Promise<void> {
  // The key is public and protects nothing: the title is a sample of the format, not of key management.
  await mkdir(out, { recursive: true });
  await writeFile(join(out, 'key.bin'), 'larder-tunnel-16');
  const keyInfo = join(made.work, 'key-info.txt');
  await writeFile(keyInfo, `../key.bin\n${join(out, 'key.bin')}\n${'1a5de2'.padStart(32, '0')}\n`);
  const [sound] = [...made.audio.values()] as [string];
  const lines: string[] = [];
  for (const r of title.renditions) {
    const folder = join(out, r.name);
    const source = made.video.get(r.name) as string;
    await mkdir(folder, { recursive: true });
    await ffmpeg([
      '-i', source, '-i', sound, '-map', '0:v', '-map', '1:a', '-c', 'copy', '-f', 'hls', '-hls_time', String(title.segmentSeconds), '-hls_list_size', '0', '-start_number', '1', '-hls_playlist_type', 'vod',
      '-hls_flags', 'independent_segments', '-hls_key_info_file', keyInfo, '-hls_segment_filename', join(folder, 'seg-%05d.ts'),
    ], join(folder, 'index.m3u8'), false);
    const durations = [...(await readFile(join(folder, 'index.m3u8'), 'utf8')).matchAll(/^#EXTINF:([\d.]+)/gm)].map((m) => Number(m[1]));
    const segments: MeasuredSegment[] = [];
    for (const [i, seconds] of durations.entries()) segments.push({ bytes: (await stat(join(folder, `seg-${String(i + 1).padStart(5, '0')}.ts`))).size, seconds });
    lines.push(...variant(r, `${r.name}/index.m3u8`, [track(await readFile(source)).codec, 'mp4a.40.2'], segments, []));
  }
  await writeFile(join(out, 'master.m3u8'), multivariantPlaylist(...lines).replace('VERSION:7', 'VERSION:6'));
}
