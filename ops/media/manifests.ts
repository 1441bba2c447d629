// Formats HLS playlists and DASH manifests from measured segments. Pure. Bit rates are computed here too, because both formats
// declare them and must agree.

import { FPS, type Rendition, type Title } from './title.ts';

/** Size and duration of a segment or byte range. */
export interface MeasuredSegment {
  bytes: number;
  seconds: number;
}

/** Start and duration of a segment in the timescale of its track. */
export interface SegmentTiming {
  start: number;
  duration: number;
}

const LANGUAGES: Record<string, string> = { en: 'English', fr: 'Français' };

/** Peak and mean rate in bit/s. A short last segment does not count for the peak. */
export function measureRate(segments: MeasuredSegment[]): { peak: number; mean: number } {
  const seconds = sum(segments.map((s) => s.seconds));
  const longest = Math.max(...segments.map((s) => s.seconds));
  const peaks = segments.filter((s) => s.seconds >= longest / 2).map((s) => (s.bytes * 8) / s.seconds);
  return { peak: Math.ceil(Math.max(...peaks)), mean: Math.ceil((sum(segments.map((s) => s.bytes)) * 8) / seconds) };
}

// ----------------------------------------------------------------------------------------------------------------- HLS

export function mediaPlaylist(segments: MeasuredSegment[], head: string[], lines: (i: number) => string[]): string {
  const target = Math.ceil(Math.max(...segments.map((s) => s.seconds)) - 0.5); // EXTINF rounded to the nearest second
  return [
    '#EXTM3U', '#EXT-X-VERSION:7', `#EXT-X-TARGETDURATION:${target}`, '#EXT-X-MEDIA-SEQUENCE:1', '#EXT-X-PLAYLIST-TYPE:VOD', '#EXT-X-INDEPENDENT-SEGMENTS', ...head,
    ...segments.flatMap((s, i) => [`#EXTINF:${s.seconds.toFixed(6)},`, ...lines(i)]),
    '#EXT-X-ENDLIST', '',
  ].join('\n');
}

export function variant(r: Rendition, uri: string, codecs: string[], segments: MeasuredSegment[], audio: MeasuredSegment[][], more: string[] = []): string[] {
  const video = measureRate(segments);
  const sound = audio.map(measureRate);
  const attributes = [
    `BANDWIDTH=${video.peak + Math.max(0, ...sound.map((s) => s.peak))}`,
    `AVERAGE-BANDWIDTH=${video.mean + Math.max(0, ...sound.map((s) => s.mean))}`,
    `CODECS="${codecs.join(',')}"`, `RESOLUTION=${r.width}x${r.height}`, `FRAME-RATE=${FPS.toFixed(3)}`, `STABLE-VARIANT-ID="${r.name}"`, ...more,
  ];
  return [`#EXT-X-STREAM-INF:${attributes.join(',')}`, uri];
}

export const audioGroup = (language: string, uri: string, first: boolean): string =>
  `#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="${LANGUAGES[language]}",LANGUAGE="${language}",DEFAULT=${first ? 'YES' : 'NO'},AUTOSELECT=YES,CHANNELS="1",STABLE-RENDITION-ID="${language}",URI="${uri}"`;

export const multivariantPlaylist = (...lines: string[]): string => ['#EXTM3U', '#EXT-X-VERSION:7', '#EXT-X-INDEPENDENT-SEGMENTS', '', ...lines, ''].join('\n');

// ---------------------------------------------------------------------------------------------------------------- DASH

export function mpd(title: Title, profile: string, ...sets: string[]): string {
  return `<?xml version="1.0" encoding="UTF-8"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-${profile}:2011" type="static" mediaPresentationDuration="PT${title.seconds}S" minBufferTime="PT${title.segmentSeconds * 2}S">
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

export const representation = (r: Rendition, codec: string, segments: MeasuredSegment[], inner = ''): string =>
  `      <Representation id="${r.name}" codecs="${codec}" bandwidth="${measureRate(segments).peak}" width="${r.width}" height="${r.height}" sar="1:1"${inner === '' ? '/>' : `>${inner}</Representation>`}`;

/** The DASH SegmentTemplate of one kind of track. Consecutive segments of equal duration share one timeline entry. */
export function segmentTemplate(kind: string, timescale: number, timeline: SegmentTiming[]): string {
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
