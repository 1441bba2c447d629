// The playlist parser of the demo player: it must request what a real player requests.

import { expect, test } from 'vitest';
import { parseMultivariantPlaylist, parseMediaPlaylist } from '../playlist.ts';

const URL_MASTER = 'http://steering.example/v1/titles/film/master.m3u8';
const URL_MEDIA = 'http://edge.example/~s/film/video/index.m3u8';

test('a steered playlist yields variants by pathway, their renditions, and the steering server', () => {
  const master = parseMultivariantPlaylist(
    [
      '#EXTM3U',
      '#EXT-X-CONTENT-STEERING:SERVER-URI="/v1/steering/film?pathways=a,b",PATHWAY-ID="a"',
      '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio-a",NAME="English, loud",DEFAULT=YES,URI="http://a.example/en.m3u8"',
      '#EXT-X-MEDIA:TYPE=CLOSED-CAPTIONS,GROUP-ID="cc",NAME="x",INSTREAM-ID="CC1"',
      '#EXT-X-STREAM-INF:BANDWIDTH=100,AUDIO="audio-a",PATHWAY-ID="a",CODECS="avc1.4d400c,mp4a.40.2"',
      'http://a.example/low.m3u8',
      '#EXT-X-STREAM-INF:BANDWIDTH=100,AUDIO="audio-b",PATHWAY-ID="b"',
      '# a comment between',
      'http://b.example/low.m3u8',
    ].join('\r\n'),
    URL_MASTER,
  );
  expect(master.steering).toEqual({
    serverUri: 'http://steering.example/v1/steering/film?pathways=a,b',
    pathway: 'a',
  });
  expect(master.variants.map(({ pathway, url, audio }) => [pathway, url, audio])).toEqual([
    ['a', 'http://a.example/low.m3u8', 'audio-a'],
    ['b', 'http://b.example/low.m3u8', 'audio-b'],
  ]);
  expect(master.media).toEqual([
    { type: 'AUDIO', group: 'audio-a', name: 'English, loud', isDefault: true, url: 'http://a.example/en.m3u8' },
  ]);
});

test('a byte range without an offset follows the previous one', () => {
  const media = parseMediaPlaylist(
    [
      '#EXTM3U',
      '#EXT-X-MAP:URI="v.mp4",BYTERANGE="700@0"',
      '#EXTINF:4,',
      '#EXT-X-BYTERANGE:100@700',
      'v.mp4',
      '#EXTINF:4,',
      '#EXT-X-BYTERANGE:50',
      'v.mp4',
      '#EXTINF:4,',
      'whole.mp4',
      '#EXT-X-ENDLIST',
    ].join('\n'),
    URL_MEDIA,
  );
  const base = 'http://edge.example/~s/film/video';
  expect(media.prerequisites).toEqual([{ url: `${base}/v.mp4`, first: 0, last: 699 }]);
  expect(media.segments).toEqual([
    { url: `${base}/v.mp4`, first: 700, last: 799 },
    { url: `${base}/v.mp4`, first: 800, last: 849 },
    { url: `${base}/whole.mp4`, first: null, last: null },
  ]);
  expect(media.ended).toBe(true);
});

test('a key is requested once, from the URI in the playlist', () => {
  const key = '#EXT-X-KEY:METHOD=AES-128,URI="../key.bin",IV=0x01';
  const media = parseMediaPlaylist(
    ['#EXTM3U', key, '#EXTINF:3,', 'a.ts', key, '#EXTINF:3,', 'b.ts'].join('\n'),
    URL_MEDIA,
  );
  expect(media.prerequisites).toEqual([{ url: 'http://edge.example/~s/film/key.bin', first: null, last: null }]);
  expect(media.segments).toHaveLength(2);
});

test('text that is not a playlist is rejected', () => {
  expect(() => parseMultivariantPlaylist('<html>', URL_MASTER)).toThrow('#EXTM3U');
  expect(() => parseMultivariantPlaylist('#EXTM3U\n', URL_MASTER)).toThrow('no variant');
  expect(() => parseMediaPlaylist('#EXTM3U\n', URL_MEDIA)).toThrow('no segment');
});
