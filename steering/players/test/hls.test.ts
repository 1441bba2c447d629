import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse, types } from 'hls-parser';
import { describe, expect, it } from 'vitest';
import { packageRoot } from '../../../runtime/paths.ts';
import { steerHls, type HlsSteering } from '../hls.ts';
import { MULTIVARIANT_PLAYLIST } from '../../test/harness.ts';

const steering: HlsSteering = {
  manifest: { originBase: 'http://origin.example/media', path: '/harbor/master.m3u8' },
  pathways: [
    { id: 'alpha', base: 'http://127.0.0.2:8080/~abcdefghij012345' },
    { id: 'beta', base: 'https://beta.example/edge/~abcdefghij012345' },
    { id: 'origin', base: 'http://origin.example/media' },
  ],
  serverUri: 'http://steer.example/v1/steering/harbor?session=abcdefghij012345&pathways=alpha,beta,origin',
  bandwidth: 123_456.7,
};

const RICH = `#EXTM3U\r
#EXT-X-VERSION:9
# a comment that stays
#EXT-X-DEFINE:NAME="dir",VALUE="video"
#EXT-X-START:TIME-OFFSET=1.5
#EXT-X-SESSION-DATA:DATA-ID="com.example.title",VALUE="A, comma and =",LANGUAGE="en"
#EXT-X-SESSION-KEY:METHOD=SAMPLE-AES,URI="skd://key",KEYFORMAT="com.apple.streamingkeydelivery"
#EXT-X-SESSION-KEY:METHOD=AES-128,URI="key.bin",IV=0x000102030405060708090a0b0c0d0e0f
#EXT-X-VENDOR-THING:whatever="1,2",3
#EXT-X-CONTENT-STEERING:SERVER-URI="https://other.example/s",PATHWAY-ID="cdn-a"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="English, plain",LANGUAGE="en",DEFAULT=YES,URI="audio/en.m3u8?v=1"
#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="s",NAME="English",LANGUAGE="en",URI="../harbor/subs.m3u8"
#EXT-X-MEDIA:TYPE=VIDEO,GROUP-ID="v",NAME="Angle 1",DEFAULT=YES
#EXT-X-MEDIA:TYPE=CLOSED-CAPTIONS,GROUP-ID="cc",NAME="CC",INSTREAM-ID="CC1"
#EXT-X-STREAM-INF:BANDWIDTH=1,CODECS="avc1.4d400c,mp4a.40.2",AUDIO="a",VIDEO="v",SUBTITLES="s",CLOSED-CAPTIONS="cc",STABLE-VARIANT-ID="v2"
#EXT-X-VENDOR-BETWEEN
{$dir}/144p.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=2,AUDIO="a"
http://origin.example/media/harbor/video/240p.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=3
https://elsewhere.example/360p.m3u8
#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=4,URI="video/iframes.m3u8"
`;

interface VariantView {
  readonly uri: string;
  readonly stable: string;
  readonly renditions: readonly string[];
}

const strip = (value: string | undefined, base: string): string => (value ?? '').replace(base, 'BASE');

/** The variants of each pathway, with the pathway's base and group suffix removed. */
function viewByPathway(text: string, { pathways }: HlsSteering): Map<string, VariantView[]> {
  const playlist = parse(text);
  if (!(playlist instanceof types.MasterPlaylist)) throw new Error('no multivariant playlist');
  // hls-parser 0.16 reads a STABLE-PATHWAY-ID, which does not exist, so pathways are matched by their order in the text.
  const owners = [...text.matchAll(/^#EXT-X-(?:I-FRAME-)?STREAM-INF:.*,PATHWAY-ID="([^"]+)"/gm)].map(
    (match) => match[1],
  );
  expect(owners.length).toBe(playlist.variants.length);
  return new Map(
    pathways.map(({ id, base }) => [
      id,
      playlist.variants
        .filter((_, at) => owners[at] === id)
        .map((variant) => ({
          uri: strip(variant.uri, base),
          stable: variant.stableVariantId,
          renditions: [...variant.audio, ...variant.subtitles, ...variant.video, ...variant.closedCaptions].map(
            (rendition) =>
              `${rendition.type} ${rendition.groupId.replace(`@${id}`, '')} ${rendition.name} ${strip(rendition.uri, base)}`,
          ),
        })),
    ]),
  );
}

const titles = join(packageRoot, 'ops', 'media', 'titles');
const samples = ['harbor', 'meadow', 'tunnel']
  .map((title) => join(titles, title, 'master.m3u8'))
  .filter((file) => existsSync(file))
  .map((file): [string, string] => [file.slice(titles.length), readFileSync(file, 'utf8')]);

describe('a steered playlist', () => {
  it.each<[string, string]>([
    ['a playlist of two variants', MULTIVARIANT_PLAYLIST],
    ['a playlist with every tag', RICH],
    ...samples,
  ])('%s lists the same variants in the same order on every pathway', (_, text) => {
    const views = viewByPathway(steerHls(text, steering), steering);
    const first = views.get('alpha')!;
    expect(first.length).toBe([...text.matchAll(/^#EXT-X-(I-FRAME-)?STREAM-INF:/gm)].length);
    for (const { id } of steering.pathways) expect(views.get(id)).toEqual(first);
    expect(new Set(first.map(({ stable }) => stable)).size).toBe(first.length);
  });

  it.each<[string, string]>([
    ['a playlist of two variants', MULTIVARIANT_PLAYLIST],
    ['a playlist with every tag', RICH],
    ...samples,
  ])('%s shares no rendition group between pathways, and references only groups that exist', (_, text) => {
    const out = steerHls(text, steering);
    const named = [...out.matchAll(/^#EXT-X-STREAM-INF:.*PATHWAY-ID="([^"]+)"/gm)].flatMap(([line, pathway]) =>
      [...line.matchAll(/(AUDIO|VIDEO|SUBTITLES|CLOSED-CAPTIONS)="([^"]+)"/g)].map(([, type, group]) => ({
        pathway,
        type,
        group,
      })),
    );
    for (const { pathway, type, group } of named) {
      expect(group!.endsWith(`@${pathway}`)).toBe(true);
      expect(out).toContain(`TYPE=${type},GROUP-ID="${group}"`);
    }
  });

  it('lists its first pathway first and references the steering list', () => {
    const out = steerHls(MULTIVARIANT_PLAYLIST, steering);
    expect(out).toContain(`#EXT-X-CONTENT-STEERING:SERVER-URI="${steering.serverUri}",PATHWAY-ID="alpha"\n`);
    expect(/^#EXT-X-STREAM-INF:.*PATHWAY-ID="(\w+)"/m.exec(out)![1]).toBe('alpha');
    expect(out.startsWith('#EXTM3U\n')).toBe(true);
    expect(out.endsWith('\n')).toBe(true);
  });

  it('keeps unknown tags once and drops its own content steering', () => {
    const out = steerHls(RICH, steering);
    for (const line of [
      '# a comment that stays',
      '#EXT-X-START:TIME-OFFSET=1.5',
      '#EXT-X-VENDOR-THING:whatever="1,2",3',
      '#EXT-X-DEFINE:NAME="dir",VALUE="video"',
    ])
      expect(out.split('\n').filter((candidate) => candidate === line)).toHaveLength(1);
    expect(out).toContain('VALUE="A, comma and =",LANGUAGE="en"');
    expect(out.match(/#EXT-X-VENDOR-BETWEEN/g)).toHaveLength(3);
    expect(out).not.toContain('other.example');
  });

  it('writes assets as absolute URLs below the pathway and leaves external URIs unchanged', () => {
    const out = steerHls(RICH, steering);
    for (const { base } of steering.pathways) {
      expect(out).toContain(`\n${base}/harbor/video/144p.m3u8\n`);
      expect(out).toContain(`\n${base}/harbor/video/240p.m3u8\n`);
      expect(out).toContain(`URI="${base}/harbor/audio/en.m3u8?v=1"`);
      expect(out).toContain(`URI="${base}/harbor/subs.m3u8"`);
      expect(out).toContain(`URI="${base}/harbor/video/iframes.m3u8"`);
    }
    expect(out.match(/\nhttps:\/\/elsewhere\.example\/360p\.m3u8\n/g)).toHaveLength(3);
    expect(out).toContain(
      'METHOD=AES-128,URI="http://127.0.0.2:8080/~abcdefghij012345/harbor/key.bin",IV=0x000102030405060708090a0b0c0d0e0f',
    );
    expect(out).toContain('URI="skd://key"');
  });

  it('leaves the keyword NONE unchanged and adds stable ids that no variant has yet', () => {
    expect(steerHls(MULTIVARIANT_PLAYLIST, steering)).toContain('CLOSED-CAPTIONS=NONE,');
    const ids = [...steerHls(RICH, steering).matchAll(/STABLE-VARIANT-ID="(\w+)".*PATHWAY-ID="alpha"/g)].map(
      (match) => match[1],
    );
    expect(ids).toEqual(['v2', 'v1', 'v3', 'v4']);
  });

  it('keeps only the first pathway of a playlist that has its own', () => {
    const own = `#EXTM3U
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="one",NAME="e",URI="a.m3u8"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="two",NAME="e",URI="https://b.example/a.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO="one",PATHWAY-ID="x"
v.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO="two",PATHWAY-ID="y"
https://b.example/v.m3u8
`;
    const out = steerHls(own, steering);
    expect(out).not.toContain('b.example');
    expect(out.match(/^#EXT-X-STREAM-INF/gm)).toHaveLength(3);
  });

  it('wraps a media playlist in a multivariant one with a single variant', () => {
    const media = '#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nseg.ts\n#EXT-X-ENDLIST\n';
    const out = steerHls(media, { ...steering, manifest: { ...steering.manifest, path: '/harbor/index.m3u8' } });
    expect(out).toContain('BANDWIDTH=123457');
    expect(out).not.toContain('EXTINF');
    expect(viewByPathway(out, steering).get('origin')).toEqual([
      { uri: 'BASE/harbor/index.m3u8', stable: 'v1', renditions: [] },
    ]);
  });
});
