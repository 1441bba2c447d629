// Parsing an MPD: the assets that it references, and the faults of invalid ones.

import { describe, expect, test } from 'vitest';
import { isFault } from '../../../protocol/faults.ts';
import { parseMpd } from '../dash.ts';
import type { ParsedManifest } from '../manifest.ts';

const titleRoot = { origin: 'http://origin.example', base: '/film/' };
const parse = (text: string): ParsedManifest => parseMpd(text, '/film/manifest.mpd', titleRoot);
const mpd = (inner: string, attributes = 'mediaPresentationDuration="PT10S"'): string =>
  `<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" ${attributes}>\n${inner}\n</MPD>`;
const video = (inner: string, set = '', representation = ''): string =>
  mpd(`<Period>
<AdaptationSet contentType="video" ${set}>
<Representation id="v1" bandwidth="1000" width="640" height="360" ${representation}>
${inner}
</Representation>
</AdaptationSet>
</Period>`);
const paths = (manifest: ParsedManifest): string[] =>
  manifest.renditions.flatMap((r) => [...r.inits, ...r.segments].map((s) => s.path.slice('/film/'.length)));

function faultMessage(text: string): string {
  try {
    parse(text);
  } catch (error) {
    if (!isFault(error)) throw error;
    expect(error.code).toBe('manifest_invalid');
    expect(error.detail).toMatchObject({
      path: '/film/manifest.mpd',
      line: expect.any(Number),
      column: expect.any(Number),
    });
    return error.message.replace('/film/manifest.mpd ', '');
  }
  return 'accepted';
}

describe('an MPD', () => {
  test('numbers segments with a width, as many as the period needs', () => {
    const manifest = parse(
      video(
        '<SegmentTemplate timescale="1000" duration="4000" startNumber="0" initialization="$RepresentationID$/i.mp4" media="$RepresentationID$/$Number%03d$-$Bandwidth$.m4s"/>',
      ),
    );
    expect(paths(manifest)).toEqual(['v1/i.mp4', 'v1/000-1000.m4s', 'v1/001-1000.m4s', 'v1/002-1000.m4s']);
    expect(manifest.renditions[0]).toMatchObject({
      id: 'video/v1',
      kind: 'video',
      bandwidth: 1000,
      width: 640,
      height: 360,
    });
    expect(manifest.durationS).toBe(10);
  });

  test('has no empty last segment if the duration is rounded', () => {
    for (const d of ['PT8S', 'PT8.01S', 'PT7.9S'])
      expect(
        paths(
          parse(
            mpd(
              `<Period duration="${d}"><AdaptationSet contentType="video"><SegmentTemplate timescale="1" duration="4" media="$Number$"/><Representation id="a"/></AdaptationSet></Period>`,
            ),
          ),
        ),
      ).toEqual(['1', '2']);
  });

  test('names segments by the times of a timeline, with repeats, gaps and ticks beyond 2⁵³', () => {
    const manifest = parse(
      video(
        '<SegmentTemplate timescale="1" media="$Time$.m4s"><SegmentTimeline><S t="9007199254740993" d="4" r="2"/><S d="2"/><S t="9007199254741099" d="1"/></SegmentTimeline></SegmentTemplate>',
      ),
    );
    expect(paths(manifest)).toEqual([
      '9007199254740993.m4s',
      '9007199254740997.m4s',
      '9007199254741001.m4s',
      '9007199254741005.m4s',
      '9007199254741099.m4s',
    ]);
  });

  test('repeats an S with r=-1 up to the next S or to the end of the period', () => {
    const manifest = parse(
      video(
        '<SegmentTemplate timescale="1" media="$Number$-$Time$"><SegmentTimeline><S t="0" d="2" r="-1"/><S t="5" d="2" r="-1"/></SegmentTimeline></SegmentTemplate>',
      ),
    );
    expect(paths(manifest)).toEqual(['1-0', '2-2', '3-4', '4-5', '5-7', '6-9']);
  });

  test('ends a template at endNumber, and reads $$ as a dollar sign', () => {
    const manifest = parse(
      video('<SegmentTemplate duration="1" startNumber="5" endNumber="6" media="$$$Number$.m4s"/>'),
    );
    expect(paths(manifest)).toEqual(['$5.m4s', '$6.m4s']);
  });

  test('inherits the attributes of a template level by level', () => {
    const manifest = parse(
      mpd(`<Period duration="PT4S"><SegmentTemplate timescale="10" duration="20" startNumber="7"/>
      <AdaptationSet contentType="audio" lang="fr"><SegmentTemplate media="x$Number$"/>
      <Representation id="a"/><Representation id="b"><SegmentTemplate startNumber="9" media="y$Number$"/></Representation>
      </AdaptationSet></Period>`),
    );
    expect(paths(manifest)).toEqual(['x7', 'x8', 'y9', 'y10']);
    expect(manifest.renditions.map((r) => r.language)).toEqual(['fr', 'fr']);
  });

  test('has segment lists with byte ranges', () => {
    const manifest = parse(
      video(
        '<SegmentList duration="5"><Initialization sourceURL="i.mp4" range="0-99"/><SegmentURL media="a.mp4" mediaRange="0-9"/><SegmentURL media="b.mp4"/></SegmentList>',
      ),
    );
    expect(manifest.renditions[0]!.inits.map((r) => [r.path, r.rangeEnd])).toEqual([['/film/i.mp4', 100]]);
    expect(manifest.renditions[0]!.segments.map((r) => [r.path, r.rangeEnd])).toEqual([
      ['/film/a.mp4', 10],
      ['/film/b.mp4', null],
    ]);
  });

  test('has renditions of one file with an index', () => {
    const manifest = parse(
      video(
        '<BaseURL>all.mp4</BaseURL><SegmentBase indexRange="800-1199"><Initialization range="0-799"/></SegmentBase>',
      ),
    );
    expect(manifest.renditions[0]!.inits.map((r) => [r.path, r.rangeEnd])).toEqual([['/film/all.mp4', 800]]);
    expect(manifest.renditions[0]!.segments.map((r) => [r.path, r.rangeEnd, r.sidxOffset])).toEqual([
      ['/film/all.mp4', 1200, 800],
    ]);
  });

  test('has nested base URLs', () => {
    const manifest = parse(
      mpd(`<BaseURL>./a/</BaseURL><Period><BaseURL>b/</BaseURL><AdaptationSet mimeType="text/vtt"><BaseURL>c/</BaseURL>
      <Representation id="en"><BaseURL>s&amp;t.vtt</BaseURL></Representation></AdaptationSet></Period>`),
    );
    expect(manifest.renditions.map((r) => [r.id, r.kind])).toEqual([['text/en', 'text']]);
    expect(paths(manifest)).toEqual(['a/b/c/s&t.vtt']);
  });

  test('has one rendition for a Representation of several periods', () => {
    const period = (n: number): string =>
      `<Period id="${n}" duration="PT4S"><AdaptationSet contentType="video"><Representation id="v"><BaseURL>${n}.mp4</BaseURL></Representation></AdaptationSet></Period>`;
    const manifest = parse(mpd(period(1) + period(2), ''));
    expect(manifest.renditions).toHaveLength(1);
    expect(paths(manifest)).toEqual(['1.mp4', '2.mp4']);
    expect(manifest.durationS).toBe(8);
  });

  test('gives the title of the programme, and durations of days', () => {
    const manifest = parse(
      mpd(
        '<ProgramInformation><Title>A &lt;Film&gt;</Title></ProgramInformation><Period><AdaptationSet contentType="video"><Representation id="v"><BaseURL>a.mp4</BaseURL></Representation></AdaptationSet></Period>',
        'mediaPresentationDuration="P0Y0M1DT1H1M1.5S"',
      ),
    );
    expect(manifest.name).toBe('A <Film>');
    expect(manifest.durationS).toBe(86_400 + 3_600 + 60 + 1.5);
  });
});

describe('an invalid MPD is refused with line, column and reason', () => {
  const template = (attributes: string, inner = ''): string =>
    video(`<SegmentTemplate ${attributes}>${inner}</SegmentTemplate>`);
  test.each([
    ['an empty document', '', 'line 1 column 1: '],
    ['a document that is not XML', 'x', "line 1 column 1: char 'x' is not expected."],
    ['a tag that is not closed', '<MPD>\n<Period>\n</MPD>', 'line 3 column 1: Expected closing tag'],
    ['an attribute without quotes', '<MPD>\n <Period id=1/>\n</MPD>', 'line 2 column'],
    ['a root element other than MPD', '<html></html>', 'line 1 column 1: the root element is <html>'],
    ['a second root element', '<MPD type="static"/>\n<MPD/>', 'line 2 column 1: <MPD> is a second root element'],
    ['a document type', '<!DOCTYPE a [<!ENTITY b "c">]>\n<MPD/>', 'line 1 column 1: a document type is not allowed'],
    [
      'a live MPD',
      '<?xml version="1.0"?>\n<MPD type="dynamic"/>',
      'line 2 column 1: MPD@type is "dynamic": it is live',
    ],
    ['an MPD without periods', mpd(''), 'line 2 column 1: the MPD has no Period'],
    ['an empty period', mpd('<Period/>'), 'line 3 column 1: the Period has no AdaptationSet'],
    ['a remote period', mpd('<Period xlink:href="http://x"/>'), 'line 3 column 1: <Period> is remote'],
    [
      'an empty AdaptationSet',
      mpd('<Period>\n  <AdaptationSet contentType="video"/></Period>'),
      'line 4 column 3: the AdaptationSet has no Representation',
    ],
    [
      'a representation without id',
      mpd('<Period><AdaptationSet contentType="video">\n<Representation/></AdaptationSet></Period>'),
      'line 4 column 1: the Representation has no id',
    ],
    [
      'an AdaptationSet without contentType and mimeType',
      mpd('<Period>\n<AdaptationSet><Representation id="a"/></AdaptationSet></Period>'),
      'line 4 column 1: the AdaptationSet has neither contentType nor mimeType',
    ],
    [
      'a bandwidth that is no number',
      video('<BaseURL>a</BaseURL>').replace('"1000"', '"fast"'),
      'line 5 column 1: Representation@bandwidth is "fast"',
    ],
    ['a Representation that names no file', video(''), 'line 5 column 1: Representation v1 names no file'],
    [
      'a BaseURL that is a directory',
      video('<BaseURL>a/</BaseURL>'),
      'line 5 column 1: Representation v1 names no file',
    ],
    [
      'a base URL on another host',
      video('<BaseURL>https://cdn.example/film/</BaseURL>'),
      'line 6 column 1: "https://cdn.example/film/-" is an absolute URL',
    ],
    [
      'a base URL above the title',
      video('<BaseURL>../</BaseURL>'),
      'line 6 column 1: "../-" is /-, which is no file below the title\'s base /film/',
    ],
    [
      'a file above the title',
      template('duration="1" media="../$Number$"'),
      'line 6 column 1: "../1" is /1, which is no file',
    ],
    ['a template without media', template('duration="1"'), 'line 6 column 1: the SegmentTemplate has no media'],
    [
      'a template without duration',
      template('media="$Number$"'),
      'line 6 column 1: the SegmentTemplate has neither a duration nor a SegmentTimeline',
    ],
    [
      'a timescale of 0',
      template('timescale="0" duration="1" media="$Number$"'),
      'line 6 column 1: SegmentTemplate@timescale is 0',
    ],
    [
      'a duration that is no number',
      template('duration="long" media="$Number$"'),
      'line 6 column 1: SegmentTemplate@duration is "long"',
    ],
    [
      'an unknown identifier in a template',
      template('duration="1" media="$SubNumber$"'),
      'line 6 column 1: in the template "$SubNumber$", $SubNumber$ is no identifier',
    ],
    [
      'an invalid width in a template',
      template('duration="1" media="$Number%5d$"'),
      'line 6 column 1: in the template "$Number%5d$", $Number%5d$ is no identifier',
    ],
    [
      'a single dollar sign',
      template('duration="1" media="a$Number"'),
      'line 6 column 1: in the template "a$Number", a $ has no partner',
    ],
    [
      '$Number$ in the initialization',
      template('duration="1" media="$Number$" initialization="i$Number$"'),
      'line 6 column 1: in the template "i$Number$", $Number$ has no value here',
    ],
    [
      'too many segments',
      template('timescale="1000000" duration="1" media="$Number$"'),
      'line 6 column 1: a Representation has at most 100000 segments',
    ],
    [
      'too many repeats',
      template('media="$Time$"', '<SegmentTimeline><S d="1" r="999999999"/></SegmentTimeline>'),
      'a Representation has at most 100000 segments',
    ],
    [
      'an empty timeline',
      template('media="$Time$"', '\n<SegmentTimeline/>'),
      'line 7 column 1: the SegmentTimeline has no S',
    ],
    [
      'an S without d',
      template('media="$Time$"', '<SegmentTimeline>\n  <S t="1"/></SegmentTimeline>'),
      'line 7 column 3: the S has no duration d',
    ],
    [
      'an S with an invalid r',
      template('media="$Time$"', '<SegmentTimeline>\n<S d="1" r="-2"/></SegmentTimeline>'),
      'line 7 column 1: S@r is "-2"',
    ],
    [
      'an unknown number of segments',
      template('duration="1" media="$Number$"').replace('mediaPresentationDuration="PT10S"', ''),
      'line 6 column 1: the number of segments is unknown',
    ],
    ['an empty segment list', video('<SegmentList/>'), 'line 6 column 1: the SegmentList has no SegmentURL'],
    [
      'an invalid byte range',
      video('<SegmentList><SegmentURL media="a" mediaRange="9-1"/></SegmentList>'),
      'line 6 column 14: SegmentURL@mediaRange is "9-1"',
    ],
    [
      'an invalid index range',
      video('<BaseURL>a</BaseURL><SegmentBase indexRange="all"/>'),
      'line 6 column 21: SegmentBase@indexRange is "all"',
    ],
    [
      'an invalid duration of the presentation',
      mpd('<Period/>', 'mediaPresentationDuration="10s"'),
      'line 2 column 1: MPD@mediaPresentationDuration is "10s"',
    ],
    [
      'an empty duration of the presentation',
      mpd('<Period/>', 'mediaPresentationDuration="PT"'),
      'line 2 column 1: MPD@mediaPresentationDuration is "PT"',
    ],
  ])('%s', (_, text, expected) => {
    expect(faultMessage(text)).toContain(expected);
  });

  test('a truncated document, at its end', () => {
    expect(faultMessage('<MPD>\n<Period>')).toBe('line 2 column 9: the document ends before </Period>');
  });

  test('elements nested too deeply', () => {
    expect(faultMessage(`<MPD>${'<a>'.repeat(10_000)}${'</a>'.repeat(10_000)}</MPD>`)).toMatch(/nest/i);
  });
});
