import { describe, expect, test } from 'vitest';
import { isFault } from '../../../protocol/faults.ts';
import { readMpd } from '../dash.ts';
import type { ManifestDraft } from '../manifest.ts';

const ground = { origin: 'http://origin.example', base: '/film/' };
const read = (text: string): ManifestDraft => readMpd(text, '/film/manifest.mpd', ground);
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
const paths = (draft: ManifestDraft): string[] =>
  draft.renditions.flatMap((r) => [...r.inits, ...r.segments].map((s) => s.path.slice('/film/'.length)));

function complaint(text: string): string {
  try {
    read(text);
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

describe('segments of an MPD', () => {
  test('by number, with a width, as many as the period needs', () => {
    const draft = read(
      video(
        '<SegmentTemplate timescale="1000" duration="4000" startNumber="0" initialization="$RepresentationID$/i.mp4" media="$RepresentationID$/$Number%03d$-$Bandwidth$.m4s"/>',
      ),
    );
    expect(paths(draft)).toEqual(['v1/i.mp4', 'v1/000-1000.m4s', 'v1/001-1000.m4s', 'v1/002-1000.m4s']);
    expect(draft.renditions[0]).toMatchObject({
      id: 'video/v1',
      kind: 'video',
      bandwidth: 1000,
      width: 640,
      height: 360,
    });
    expect(draft.durationS).toBe(10);
  });

  test('a duration that the segments fill exactly, or but for a rounding, makes no empty last one', () => {
    for (const d of ['PT8S', 'PT8.01S', 'PT7.9S'])
      expect(
        paths(
          read(
            mpd(
              `<Period duration="${d}"><AdaptationSet contentType="video"><SegmentTemplate timescale="1" duration="4" media="$Number$"/><Representation id="a"/></AdaptationSet></Period>`,
            ),
          ),
        ),
      ).toEqual(['1', '2']);
  });

  test('by time, from a timeline with repeats, gaps and ticks beyond 2⁵³', () => {
    const draft = read(
      video(
        '<SegmentTemplate timescale="1" media="$Time$.m4s"><SegmentTimeline><S t="9007199254740993" d="4" r="2"/><S d="2"/><S t="9007199254741099" d="1"/></SegmentTimeline></SegmentTemplate>',
      ),
    );
    expect(paths(draft)).toEqual([
      '9007199254740993.m4s',
      '9007199254740997.m4s',
      '9007199254741001.m4s',
      '9007199254741005.m4s',
      '9007199254741099.m4s',
    ]);
  });

  test('a repeat of -1 fills up to the next S, or to the end of the period', () => {
    const draft = read(
      video(
        '<SegmentTemplate timescale="1" media="$Number$-$Time$"><SegmentTimeline><S t="0" d="2" r="-1"/><S t="5" d="2" r="-1"/></SegmentTimeline></SegmentTemplate>',
      ),
    );
    expect(paths(draft)).toEqual(['1-0', '2-2', '3-4', '4-5', '5-7', '6-9']);
  });

  test('endNumber bounds the template, and $$ is a dollar', () => {
    const draft = read(video('<SegmentTemplate duration="1" startNumber="5" endNumber="6" media="$$$Number$.m4s"/>'));
    expect(paths(draft)).toEqual(['$5.m4s', '$6.m4s']);
  });

  test('template attributes are inherited level by level', () => {
    const draft = read(
      mpd(`<Period duration="PT4S"><SegmentTemplate timescale="10" duration="20" startNumber="7"/>
      <AdaptationSet contentType="audio" lang="fr"><SegmentTemplate media="x$Number$"/>
      <Representation id="a"/><Representation id="b"><SegmentTemplate startNumber="9" media="y$Number$"/></Representation>
      </AdaptationSet></Period>`),
    );
    expect(paths(draft)).toEqual(['x7', 'x8', 'y9', 'y10']);
    expect(draft.renditions.map((r) => r.language)).toEqual(['fr', 'fr']);
  });

  test('a segment list, with ranges', () => {
    const draft = read(
      video(
        '<SegmentList duration="5"><Initialization sourceURL="i.mp4" range="0-99"/><SegmentURL media="a.mp4" mediaRange="0-9"/><SegmentURL media="b.mp4"/></SegmentList>',
      ),
    );
    expect(draft.renditions[0]!.inits.map((r) => [r.path, r.endBytes])).toEqual([['/film/i.mp4', 100]]);
    expect(draft.renditions[0]!.segments.map((r) => [r.path, r.endBytes])).toEqual([
      ['/film/a.mp4', 10],
      ['/film/b.mp4', null],
    ]);
  });

  test('one file with an index', () => {
    const draft = read(
      video(
        '<BaseURL>all.mp4</BaseURL><SegmentBase indexRange="800-1199"><Initialization range="0-799"/></SegmentBase>',
      ),
    );
    expect(draft.renditions[0]!.inits.map((r) => [r.path, r.endBytes])).toEqual([['/film/all.mp4', 800]]);
    expect(draft.renditions[0]!.segments.map((r) => [r.path, r.endBytes, r.indexAt])).toEqual([
      ['/film/all.mp4', 1200, 800],
    ]);
  });

  test('base URLs nest', () => {
    const draft = read(
      mpd(`<BaseURL>./a/</BaseURL><Period><BaseURL>b/</BaseURL><AdaptationSet mimeType="text/vtt"><BaseURL>c/</BaseURL>
      <Representation id="en"><BaseURL>s&amp;t.vtt</BaseURL></Representation></AdaptationSet></Period>`),
    );
    expect(draft.renditions.map((r) => [r.id, r.kind])).toEqual([['text/en', 'text']]);
    expect(paths(draft)).toEqual(['a/b/c/s&t.vtt']);
  });

  test('a representation of several periods is one rendition', () => {
    const period = (n: number): string =>
      `<Period id="${n}" duration="PT4S"><AdaptationSet contentType="video"><Representation id="v"><BaseURL>${n}.mp4</BaseURL></Representation></AdaptationSet></Period>`;
    const draft = read(mpd(period(1) + period(2), ''));
    expect(draft.renditions).toHaveLength(1);
    expect(paths(draft)).toEqual(['1.mp4', '2.mp4']);
    expect(draft.durationS).toBe(8);
  });

  test('the title of the programme, and durations of days', () => {
    const draft = read(
      mpd(
        '<ProgramInformation><Title>A &lt;Film&gt;</Title></ProgramInformation><Period><AdaptationSet contentType="video"><Representation id="v"><BaseURL>a.mp4</BaseURL></Representation></AdaptationSet></Period>',
        'mediaPresentationDuration="P0Y0M1DT1H1M1.5S"',
      ),
    );
    expect(draft.name).toBe('A <Film>');
    expect(draft.durationS).toBe(86_400 + 3_600 + 60 + 1.5);
  });
});

describe('an MPD is refused with line, column and reason', () => {
  const template = (attributes: string, inner = ''): string =>
    video(`<SegmentTemplate ${attributes}>${inner}</SegmentTemplate>`);
  test.each([
    ['nothing', '', 'line 1 column 1: '],
    ['no XML', 'x', "line 1 column 1: char 'x' is not expected."],
    ['a tag left open', '<MPD>\n<Period>\n</MPD>', 'line 3 column 1: Expected closing tag'],
    ['an attribute without quotes', '<MPD>\n <Period id=1/>\n</MPD>', 'line 2 column'],
    ['another root', '<html></html>', 'line 1 column 1: the root element is <html>'],
    ['a second root', '<MPD type="static"/>\n<MPD/>', 'line 2 column 1: <MPD> is a second root element'],
    ['a document type', '<!DOCTYPE a [<!ENTITY b "c">]>\n<MPD/>', 'line 1 column 1: a document type is not allowed'],
    [
      'a live one',
      '<?xml version="1.0"?>\n<MPD type="dynamic"/>',
      'line 2 column 1: MPD@type is "dynamic": it is live',
    ],
    ['no period', mpd(''), 'line 2 column 1: the MPD has no Period'],
    ['an empty period', mpd('<Period/>'), 'line 3 column 1: the Period has no AdaptationSet'],
    ['a remote period', mpd('<Period xlink:href="http://x"/>'), 'line 3 column 1: <Period> is remote'],
    [
      'an empty set',
      mpd('<Period>\n  <AdaptationSet contentType="video"/></Period>'),
      'line 4 column 3: the AdaptationSet has no Representation',
    ],
    [
      'a representation without id',
      mpd('<Period><AdaptationSet contentType="video">\n<Representation/></AdaptationSet></Period>'),
      'line 4 column 1: the Representation has no id',
    ],
    [
      'a set of no kind',
      mpd('<Period>\n<AdaptationSet><Representation id="a"/></AdaptationSet></Period>'),
      'line 4 column 1: the AdaptationSet has neither contentType nor mimeType',
    ],
    [
      'a bandwidth in words',
      video('<BaseURL>a</BaseURL>').replace('"1000"', '"fast"'),
      'line 5 column 1: Representation@bandwidth is "fast"',
    ],
    ['no file', video(''), 'line 5 column 1: Representation v1 names no file'],
    ['a directory for a file', video('<BaseURL>a/</BaseURL>'), 'line 5 column 1: Representation v1 names no file'],
    [
      'another host',
      video('<BaseURL>https://cdn.example/film/</BaseURL>'),
      'line 6 column 1: "https://cdn.example/film/-" is an absolute URL',
    ],
    [
      'a base above the title',
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
      'a timescale of nothing',
      template('timescale="0" duration="1" media="$Number$"'),
      'line 6 column 1: SegmentTemplate@timescale is 0',
    ],
    [
      'a duration in words',
      template('duration="long" media="$Number$"'),
      'line 6 column 1: SegmentTemplate@duration is "long"',
    ],
    [
      'an identifier unknown',
      template('duration="1" media="$SubNumber$"'),
      'line 6 column 1: in the template "$SubNumber$", $SubNumber$ is no identifier',
    ],
    [
      'a width out of shape',
      template('duration="1" media="$Number%5d$"'),
      'line 6 column 1: in the template "$Number%5d$", $Number%5d$ is no identifier',
    ],
    [
      'a dollar alone',
      template('duration="1" media="a$Number"'),
      'line 6 column 1: in the template "a$Number", a $ has no partner',
    ],
    [
      'a number in the initialization',
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
      'an S with r out of shape',
      template('media="$Time$"', '<SegmentTimeline>\n<S d="1" r="-2"/></SegmentTimeline>'),
      'line 7 column 1: S@r is "-2"',
    ],
    [
      'a number of segments unknown',
      template('duration="1" media="$Number$"').replace('mediaPresentationDuration="PT10S"', ''),
      'line 6 column 1: the number of segments is unknown',
    ],
    ['an empty list', video('<SegmentList/>'), 'line 6 column 1: the SegmentList has no SegmentURL'],
    [
      'a range out of shape',
      video('<SegmentList><SegmentURL media="a" mediaRange="9-1"/></SegmentList>'),
      'line 6 column 14: SegmentURL@mediaRange is "9-1"',
    ],
    [
      'an index out of shape',
      video('<BaseURL>a</BaseURL><SegmentBase indexRange="all"/>'),
      'line 6 column 21: SegmentBase@indexRange is "all"',
    ],
    [
      'a length out of shape',
      mpd('<Period/>', 'mediaPresentationDuration="10s"'),
      'line 2 column 1: MPD@mediaPresentationDuration is "10s"',
    ],
    [
      'a length of nothing',
      mpd('<Period/>', 'mediaPresentationDuration="PT"'),
      'line 2 column 1: MPD@mediaPresentationDuration is "PT"',
    ],
  ])('%s', (_, text, expected) => {
    expect(complaint(text)).toContain(expected);
  });

  test('a document cut short, at its end', () => {
    expect(complaint('<MPD>\n<Period>')).toBe('line 2 column 9: the document ends before </Period>');
  });

  test('elements within elements without end', () => {
    expect(complaint(`<MPD>${'<a>'.repeat(10_000)}${'</a>'.repeat(10_000)}</MPD>`)).toMatch(/nest/i);
  });
});
