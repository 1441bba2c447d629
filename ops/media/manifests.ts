// Writes the text of HLS playlists and DASH manifests from measured pieces: values in, text out, no files.
// Rates are computed here too, because both formats announce them and have to agree.

import { FPS, type Rendition, type Title } from './title.ts';

/** A segment or byte range, as measured. */
export interface Piece {
  bytes: number;
  seconds: number;
}

/** When a segment plays, in its track's timescale. */
export interface Span {
  start: number;
  duration: number;
}

const LANGUAGES: Record<string, string> = { en: 'English', fr: 'Français' };

/** Peak and mean rate in bit/s; a short last piece does not count for the peak. */
export function rate(pieces: Piece[]): { peak: number; mean: number } {
  const seconds = sum(pieces.map((p) => p.seconds));
  const longest = Math.max(...pieces.map((p) => p.seconds));
  const peaks = pieces.filter((p) => p.seconds >= longest / 2).map((p) => (p.bytes * 8) / p.seconds);
  return { peak: Math.ceil(Math.max(...peaks)), mean: Math.ceil((sum(pieces.map((p) => p.bytes)) * 8) / seconds) };
}

// ----------------------------------------------------------------------------------------------------------------- HLS

export function mediaPlaylist(pieces: Piece[], head: string[], lines: (i: number) => string[]): string {
  const target = Math.ceil(Math.max(...pieces.map((p) => p.seconds)) - 0.5); // EXTINF rounded to the nearest second
  return [
    '#EXTM3U', '#EXT-X-VERSION:7', `#EXT-X-TARGETDURATION:${target}`, '#EXT-X-MEDIA-SEQUENCE:1', '#EXT-X-PLAYLIST-TYPE:VOD', '#EXT-X-INDEPENDENT-SEGMENTS', ...head,
    ...pieces.flatMap((p, i) => [`#EXTINF:${p.seconds.toFixed(6)},`, ...lines(i)]),
    '#EXT-X-ENDLIST', '',
  ].join('\n');
}

export function variant(r: Rendition, uri: string, codecs: string[], pieces: Piece[], audio: Piece[][], more: string[] = []): string[] {
  const video = rate(pieces);
  const sound = audio.map(rate);
  const attributes = [
    `BANDWIDTH=${video.peak + Math.max(0, ...sound.map((s) => s.peak))}`,
    `AVERAGE-BANDWIDTH=${video.mean + Math.max(0, ...sound.map((s) => s.mean))}`,
    `CODECS="${codecs.join(',')}"`, `RESOLUTION=${r.width}x${r.height}`, `FRAME-RATE=${FPS.toFixed(3)}`, `STABLE-VARIANT-ID="${r.name}"`, ...more,
  ];
  return [`#EXT-X-STREAM-INF:${attributes.join(',')}`, uri];
}

export const audioGroup = (language: string, uri: string, first: boolean): string =>
  `#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="${LANGUAGES[language]}",LANGUAGE="${language}",DEFAULT=${first ? 'YES' : 'NO'},AUTOSELECT=YES,CHANNELS="1",STABLE-RENDITION-ID="${language}",URI="${uri}"`;

export const master = (...lines: string[]): string => ['#EXTM3U', '#EXT-X-VERSION:7', '#EXT-X-INDEPENDENT-SEGMENTS', '', ...lines, ''].join('\n');

// ---------------------------------------------------------------------------------------------------------------- DASH

export function mpd(title: Title, profile: string, ...sets: string[]): string {
  return `<?xml version="1.0" encoding="UTF-8"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-${profile}:2011" type="static" mediaPresentationDuration="PT${title.seconds}S" minBufferTime="PT${title.segment * 2}S">
  <ProgramInformation><Title>${title.name}</Title></ProgramInformation>
  <Period id="0" start="PT0S" duration="PT${title.seconds}S">
${sets.join('\n')}
  </Period>
</MPD>
`;
}

export const videoSet = (inner: string): string => `    <AdaptationSet id="1" contentType="video" mimeType="video/mp4" segmentAlignment="true" subsegmentAlignment="true" startWithSAP="1" subsegmentStartsWithSAP="1" maxWidth="640" maxHeight="360" par="16:9" frameRate="${FPS}">
      <Role schemeIdUri="urn:mpeg:dash:role:2011" value="main"/>
${inner}
    </AdaptationSet>`;

export const audioSet = (id: number, language: string, inner: string): string => `    <AdaptationSet id="${id}" contentType="audio" mimeType="audio/mp4" lang="${language}" startWithSAP="1" subsegmentStartsWithSAP="1">
      <Label>${LANGUAGES[language]}</Label>
      <Role schemeIdUri="urn:mpeg:dash:role:2011" value="${id === 2 ? 'main' : 'dub'}"/>
      <AudioChannelConfiguration schemeIdUri="urn:mpeg:dash:23003:3:audio_channel_configuration:2011" value="1"/>
${inner}
    </AdaptationSet>`;

export const representation = (r: Rendition, codec: string, pieces: Piece[], inner = ''): string =>
  `      <Representation id="${r.name}" codecs="${codec}" bandwidth="${rate(pieces).peak}" width="${r.width}" height="${r.height}" sar="1:1"${inner === '' ? '/>' : `>${inner}</Representation>`}`;

/** Where DASH finds the segments of one kind and when each starts; equal durations in a row are one entry. */
export function segmentTemplate(kind: string, timescale: number, timeline: Span[]): string {
  const runs: { start: number; duration: number; repeat: number }[] = [];
  for (const { start, duration } of timeline) {
    const last = runs.at(-1);
    if (last !== undefined && last.duration === duration) last.repeat += 1;
    else runs.push({ start, duration, repeat: 0 });
  }
  const list = runs.map((run, i) => `          <S${i === 0 ? ` t="${run.start}"` : ''} d="${run.duration}"${run.repeat > 0 ? ` r="${run.repeat}"` : ''}/>`);
  return `      <SegmentTemplate timescale="${timescale}" startNumber="1" initialization="${kind}/$RepresentationID$/init.mp4" media="${kind}/$RepresentationID$/seg-$Number%05d$.m4s">
        <SegmentTimeline>
${list.join('\n')}
        </SegmentTimeline>
      </SegmentTemplate>`;
}

const sum = (numbers: number[]): number => numbers.reduce((a, b) => a + b, 0);
