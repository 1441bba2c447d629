// Parsing HLS playlists: the assets that they reference, and the faults of invalid ones.

import { describe, expect, test } from 'vitest';
import { isFault } from '../../../protocol/faults.ts';
import { parseMultivariant } from '../hls.ts';
import { parseMediaPlaylist } from '../hls-media.ts';

const titleRoot = { origin: 'http://origin.example', base: '/film/' };
const multivariant = (...lines: string[]): ReturnType<typeof parseMultivariant> =>
  parseMultivariant(lines.join('\n'), '/film/master.m3u8', titleRoot);
const media = (...lines: string[]): ReturnType<typeof parseMediaPlaylist> =>
  parseMediaPlaylist(lines.join('\n'), '/film/v/index.m3u8', titleRoot);

const INF = '#EXT-X-STREAM-INF:BANDWIDTH=1000';
const HEAD = ['#EXTM3U', '#EXT-X-TARGETDURATION:4'];
const END = '#EXT-X-ENDLIST';
const SEGMENT = ['#EXTINF:4.0,', 'a.ts'];

/** The message of the fault, without the path of the document. */
function faultMessage(parse: () => unknown): string {
  try {
    parse();
  } catch (error) {
    if (!isFault(error)) throw error;
    expect(error.code).toBe('manifest_invalid');
    expect(error.detail['line']).toBeTypeOf('number');
    return error.message.replace(/^\S+ /, '');
  }
  return 'accepted';
}

describe('a multivariant playlist', () => {
  test('lists each media playlist once, with its description', () => {
    const { entries, name } = multivariant(
      '#EXTM3U',
      '# a comment',
      '#EXT-X-SESSION-DATA:DATA-ID="com.apple.hls.title",VALUE="The Film"',
      '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="English",LANGUAGE="en",URI="audio/en/index.m3u8"',
      '#EXT-X-MEDIA:TYPE=CLOSED-CAPTIONS,GROUP-ID="cc",NAME="CC",INSTREAM-ID="CC1"',
      '#EXT-X-STREAM-INF:BANDWIDTH=3000,RESOLUTION=640x360,CODECS="avc1.4d401e,mp4a.40.2",AUDIO="a"',
      'video/360p.m3u8',
      '#EXT-X-STREAM-INF:BANDWIDTH=2000,RESOLUTION=640x360,AUDIO="a"',
      '',
      'video/360p.m3u8',
      '#EXT-X-STREAM-INF:BANDWIDTH=64000,CODECS="mp4a.40.2"',
      'audio/only/prog_index.m3u8',
      '#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=100,RESOLUTION=256x144,URI="video/iframes.m3u8"',
    );
    expect(name).toBe('The Film');
    expect(entries.map((e) => [e.id, e.kind, e.bandwidth, e.width, e.language, e.location.line])).toEqual([
      ['audio/en', 'audio', null, null, 'en', 4],
      ['video/360p', 'video', 2000, 640, null, 7],
      ['audio/only', 'audio', 64_000, null, null, 12],
      ['video/iframes', 'iframe', 100, 256, null, 13],
    ]);
    expect(entries[1]!.path).toBe('/film/video/360p.m3u8');
  });

  test('may end its lines with CR LF', () => {
    expect(multivariant('#EXTM3U\r', `${INF}\r`, 'v.m3u8\r').entries).toHaveLength(1);
  });

  test.each([
    ['an empty document', [''], 'line 1: the first line is "", but must be #EXTM3U'],
    ['a web page', ['<html>', INF], 'line 1: the first line is "<html>", but must be #EXTM3U'],
    ['a byte order mark', ['\uFEFF#EXTM3U', INF, 'v.m3u8'], 'line 1: the first line is'],
    ['#EXTM3U twice', ['#EXTM3U', '#EXTM3U', INF, 'v.m3u8'], 'line 2: #EXTM3U stands on the first line only'],
    ['a playlist without variants', ['#EXTM3U', '#EXT-X-VERSION:7'], 'line 2: the playlist names no variant'],
    [
      'a media playlist',
      [...HEAD, ...SEGMENT, END],
      'line 2: #EXT-X-TARGETDURATION: this is a media playlist; import the multivariant',
    ],
    [
      'tags of both kinds',
      ['#EXTM3U', INF, 'v.m3u8', '#EXTINF:4,', 'a.ts'],
      'line 4: #EXTINF does not belong into a multivariant playlist',
    ],
    ['a variant without URI', ['#EXTM3U', INF, INF, 'v.m3u8'], 'line 2: #EXT-X-STREAM-INF has no URI line after it'],
    ['a variant without URI at the end', ['#EXTM3U', INF], 'line 2: #EXT-X-STREAM-INF has no URI line after it'],
    ['a URI without #EXT-X-STREAM-INF', ['#EXTM3U', 'v.m3u8'], 'line 2: "v.m3u8" follows no #EXT-X-STREAM-INF'],
    [
      'a variant without BANDWIDTH',
      ['#EXTM3U', '#EXT-X-STREAM-INF:RESOLUTION=1x1', 'v.m3u8'],
      'line 2: #EXT-X-STREAM-INF has no BANDWIDTH',
    ],
    [
      'a bandwidth that is no number',
      ['#EXTM3U', '#EXT-X-STREAM-INF:BANDWIDTH=fast', 'v.m3u8'],
      'line 2: #EXT-X-STREAM-INF: BANDWIDTH is fast, but must be bits per second',
    ],
    [
      'an invalid resolution',
      ['#EXTM3U', `${INF},RESOLUTION=640`, 'v.m3u8'],
      'line 2: #EXT-X-STREAM-INF: RESOLUTION is 640, but must be WIDTHxHEIGHT',
    ],
    [
      'CODECS without quotes',
      ['#EXTM3U', `${INF},CODECS=avc1`, 'v.m3u8'],
      'line 2: #EXT-X-STREAM-INF: CODECS is avc1, but must be quoted',
    ],
    [
      'a repeated attribute',
      ['#EXTM3U', `${INF},BANDWIDTH=2`, 'v.m3u8'],
      'line 2: #EXT-X-STREAM-INF: BANDWIDTH occurs twice',
    ],
    [
      'an invalid attribute list',
      ['#EXTM3U', `${INF},,A`, 'v.m3u8'],
      'line 2: #EXT-X-STREAM-INF: ",A" is no list of NAME=VALUE',
    ],
    [
      'a quote that is not closed',
      ['#EXTM3U', `${INF},CODECS="avc1`, 'v.m3u8'],
      'line 2: #EXT-X-STREAM-INF: "CODECS="avc1" is no list',
    ],
    [
      'a group that does not exist',
      ['#EXTM3U', `${INF},AUDIO="a"`, 'v.m3u8'],
      'line 2: #EXT-X-STREAM-INF: AUDIO="a" is the GROUP-ID of no #EXT-X-MEDIA',
    ],
    [
      'media without TYPE',
      ['#EXTM3U', '#EXT-X-MEDIA:GROUP-ID="a",NAME="n"', INF, 'v.m3u8'],
      'line 2: #EXT-X-MEDIA has no TYPE',
    ],
    [
      'media without GROUP-ID',
      ['#EXTM3U', '#EXT-X-MEDIA:TYPE=AUDIO,NAME="n"', INF, 'v.m3u8'],
      'line 2: #EXT-X-MEDIA has no GROUP-ID',
    ],
    [
      'media without NAME',
      ['#EXTM3U', '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a"', INF, 'v.m3u8'],
      'line 2: #EXT-X-MEDIA has no NAME',
    ],
    [
      'subtitles without URI',
      ['#EXTM3U', '#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="a",NAME="n"', INF, 'v.m3u8'],
      'line 2: #EXT-X-MEDIA has no URI',
    ],
    [
      'an empty URI',
      ['#EXTM3U', '#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI=""', INF, 'v.m3u8'],
      'line 2: #EXT-X-I-FRAME-STREAM-INF has no URI',
    ],
    [
      'a URI on another host',
      ['#EXTM3U', INF, 'http://other.example/film/v.m3u8'],
      'line 3: "http://other.example/film/v.m3u8" is an absolute URL',
    ],
    [
      'a URI on another host without a scheme',
      ['#EXTM3U', INF, '//other.example/v.m3u8'],
      'line 3: "//other.example/v.m3u8" is an absolute URL',
    ],
    [
      'a file outside the base',
      ['#EXTM3U', INF, '../other/v.m3u8'],
      'line 3: "../other/v.m3u8" is /other/v.m3u8, which is no file below the title\'s base /film/',
    ],
    [
      'a percent-encoded .. segment',
      ['#EXTM3U', INF, '%2e%2e/v.m3u8'],
      'line 3: "%2e%2e/v.m3u8" is /v.m3u8, which is no file below',
    ],
    ['a URI with a query', ['#EXTM3U', INF, 'v.m3u8?x=1'], 'line 3: "v.m3u8?x=1" has a query or a fragment'],
    ['an encoded NUL', ['#EXTM3U', INF, 'v%00.m3u8'], 'line 3: "v%00.m3u8" has an escaped control character %00'],
    [
      'an incomplete percent-encoding',
      ['#EXTM3U', INF, 'v%2.m3u8'],
      'line 3: "v%2.m3u8" has a % that begins no character',
    ],
    [
      'variables',
      ['#EXTM3U', '#EXT-X-DEFINE:NAME="a",VALUE="b"', INF, 'v.m3u8'],
      'line 2: #EXT-X-DEFINE: variables in playlists are not supported',
    ],
    [
      'session data with both VALUE and URI',
      ['#EXTM3U', '#EXT-X-SESSION-DATA:DATA-ID="a",VALUE="b",URI="c"', INF, 'v.m3u8'],
      'line 2: #EXT-X-SESSION-DATA needs a VALUE or a URI',
    ],
  ])('is refused with line and reason: %s', (_, lines, expected) => {
    expect(faultMessage(() => multivariant(...lines))).toContain(expected);
  });
});

describe('a media playlist', () => {
  test('lists segments, byte ranges, inits and keys', () => {
    const playlist = media(
      ...HEAD,
      '#EXT-X-MAP:URI="init.mp4",BYTERANGE="700@0"',
      '#EXT-X-KEY:METHOD=AES-128,URI="../key.bin",IV=0x1234',
      '#EXTINF:4.5,a title, with commas',
      '#EXT-X-BYTERANGE:100@700',
      'all.mp4',
      '#EXT-X-KEY:METHOD=NONE',
      '#EXTINF:3.5',
      '#EXT-X-BYTERANGE:50',
      'all.mp4',
      '#EXT-X-GAP',
      '#EXTINF:4,',
      'lost.mp4',
      END,
    );
    expect(playlist.durationS).toBe(12);
    expect(playlist.inits.map((r) => [r.path, r.rangeEnd])).toEqual([['/film/v/init.mp4', 700]]);
    expect(playlist.segments.map((r) => [r.path, r.rangeEnd, r.location.line])).toEqual([
      ['/film/v/all.mp4', 800, 7],
      ['/film/v/all.mp4', 850, 11],
    ]);
    expect(playlist.keys.map((r) => r.path)).toEqual(['/film/key.bin']);
  });

  test('has no asset for keys of DRM systems and of other key servers', () => {
    const playlist = media(
      ...HEAD,
      '#EXT-X-KEY:METHOD=SAMPLE-AES,URI="skd://key",KEYFORMAT="com.apple.streamingkeydelivery"',
      '#EXT-X-KEY:METHOD=AES-128,URI="https://keys.example/1?a=b"',
      ...SEGMENT,
      END,
    );
    expect(playlist.keys).toEqual([]);
  });

  test('may use URIs that start with / if the origin has no base path', () => {
    expect(media(...HEAD, '#EXTINF:4,', '/film/a.ts', END).segments[0]!.path).toBe('/film/a.ts');
    const below = { origin: 'http://origin.example/vod', base: '/film/' };
    const text = [...HEAD, '#EXTINF:4,', '/vod/film/a.ts', END].join('\n');
    expect(faultMessage(() => parseMediaPlaylist(text, '/film/v.m3u8', below))).toContain(
      'line 4: "/vod/film/a.ts" starts with /',
    );
  });

  test.each([
    [
      'a duration that is no number',
      [...HEAD, '#EXTINF:abc,', 'a.ts', END],
      'line 3: #EXTINF: the duration is "abc", but must be seconds',
    ],
    ['a negative duration', [...HEAD, '#EXTINF:-1,', 'a.ts', END], 'line 3: #EXTINF: the duration is "-1"'],
    ['an empty duration', [...HEAD, '#EXTINF:,', 'a.ts', END], 'line 3: #EXTINF: the duration is ""'],
    [
      'a segment without URI',
      [...HEAD, '#EXTINF:4,', ...SEGMENT, END],
      'line 3: #EXTINF has no URI before the next one on line 4',
    ],
    [
      'a segment without URI at the end',
      [...HEAD, ...SEGMENT, '#EXTINF:4,', END],
      'line 5: #EXTINF has no URI after it',
    ],
    ['a URI without EXTINF', [...HEAD, 'a.ts', END], 'line 3: "a.ts" has no #EXTINF before it'],
    [
      'a byte range that is no number',
      [...HEAD, '#EXTINF:4,', '#EXT-X-BYTERANGE:all', 'a.ts', END],
      'line 4: #EXT-X-BYTERANGE: the byte range is "all", but must be LENGTH or LENGTH@OFFSET',
    ],
    [
      'an empty byte range',
      [...HEAD, '#EXTINF:4,', '#EXT-X-BYTERANGE:0@5', 'a.ts', END],
      'line 4: #EXT-X-BYTERANGE: the byte range is "0@5"',
    ],
    [
      'a byte range written as FIRST-LAST',
      [...HEAD, '#EXTINF:4,', '#EXT-X-BYTERANGE:0-99', 'a.ts', END],
      'line 4: #EXT-X-BYTERANGE: the byte range is "0-99"',
    ],
    [
      'a first byte range without offset',
      [...HEAD, '#EXTINF:4,', '#EXT-X-BYTERANGE:5', 'a.ts', END],
      'line 5: #EXT-X-BYTERANGE has no offset',
    ],
    [
      'a byte range without offset after another file',
      [...HEAD, '#EXTINF:4,', '#EXT-X-BYTERANGE:5@0', 'a.ts', '#EXTINF:4,', '#EXT-X-BYTERANGE:5', 'b.ts', END],
      'line 8: #EXT-X-BYTERANGE has no offset',
    ],
    ['a map without URI', [...HEAD, '#EXT-X-MAP:BYTERANGE="5@0"', ...SEGMENT, END], 'line 3: #EXT-X-MAP has no URI'],
    [
      'a map with an invalid byte range',
      [...HEAD, '#EXT-X-MAP:URI="i",BYTERANGE="x"', ...SEGMENT, END],
      'line 3: #EXT-X-MAP: the byte range is "x"',
    ],
    [
      'a map outside the base',
      [...HEAD, '#EXT-X-MAP:URI="../../i.mp4"', ...SEGMENT, END],
      'line 3: "../../i.mp4" is /i.mp4',
    ],
    ['a key without URI', [...HEAD, '#EXT-X-KEY:METHOD=AES-128', ...SEGMENT, END], 'line 3: #EXT-X-KEY has no URI'],
    ['a key without METHOD', [...HEAD, '#EXT-X-KEY:URI="k"', ...SEGMENT, END], 'line 3: #EXT-X-KEY has no METHOD'],
    [
      'a key with an unknown method',
      [...HEAD, '#EXT-X-KEY:METHOD=ROT13,URI="k"', ...SEGMENT, END],
      'line 3: #EXT-X-KEY: METHOD is ROT13',
    ],
    [
      'a key with an invalid IV',
      [...HEAD, '#EXT-X-KEY:METHOD=AES-128,URI="k",IV=7', ...SEGMENT, END],
      'line 3: #EXT-X-KEY: IV is 7',
    ],
    [
      'METHOD=NONE with a URI',
      [...HEAD, '#EXT-X-KEY:METHOD=NONE,URI="k"', ...SEGMENT, END],
      'line 3: #EXT-X-KEY: METHOD=NONE has no URI',
    ],
    [
      'a target duration that is no number',
      ['#EXTM3U', '#EXT-X-TARGETDURATION:four', ...SEGMENT, END],
      'line 2: #EXT-X-TARGETDURATION is "four"',
    ],
    [
      'a playlist without target duration',
      ['#EXTM3U', ...SEGMENT, END],
      'line 1: the playlist has no #EXT-X-TARGETDURATION',
    ],
    [
      'a repeated target duration',
      [...HEAD, '#EXT-X-TARGETDURATION:4', ...SEGMENT, END],
      'line 3: #EXT-X-TARGETDURATION stands on line 2 already',
    ],
    [
      'an unknown playlist type',
      [...HEAD, '#EXT-X-PLAYLIST-TYPE:LIVE', ...SEGMENT, END],
      'line 3: #EXT-X-PLAYLIST-TYPE is LIVE',
    ],
    ['a live playlist', [...HEAD, ...SEGMENT], 'line 4: the playlist ends without #EXT-X-ENDLIST: it is live'],
    [
      'partial segments of a live playlist',
      [...HEAD, '#EXT-X-PART:DURATION=1,URI="p"', ...SEGMENT, END],
      'line 3: #EXT-X-PART: partial segments belong to live',
    ],
    ['a playlist without segments', [...HEAD, END], 'line 3: the playlist has no segment'],
    ['a playlist of gaps only', [...HEAD, '#EXT-X-GAP', ...SEGMENT, END], 'line 6: the playlist has no segment'],
    [
      'a multivariant playlist',
      ['#EXTM3U', INF, 'v.m3u8'],
      'line 2: #EXT-X-STREAM-INF: this is a multivariant playlist',
    ],
  ])('is refused with line and reason: %s', (_, lines, expected) => {
    expect(faultMessage(() => media(...lines))).toContain(expected);
  });
});
