import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { XMLParser, XMLValidator } from 'fast-xml-parser';
import { describe, expect, it } from 'vitest';
import { packageRoot } from '../../../runtime/paths.ts';
import { steerDash } from '../dash.ts';
import type { ManifestSteering } from '../pathway.ts';

const steering: ManifestSteering = {
  manifest: { originBase: 'http://origin.example/media', path: '/harbor/manifest.mpd' },
  pathways: [
    { id: 'alpha', base: 'http://127.0.0.2:8080/~abcdefghij012345' },
    { id: 'origin', base: 'http://origin.example/media' },
  ],
  serverUri: 'http://steer.example/v1/steering/harbor?session=abcdefghij012345&pathways=alpha,origin',
};

const UNUSUAL = `<?xml version="1.0" encoding="UTF-8"?>
<!-- <BaseURL>in a comment</BaseURL> -->
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" note="a > b">
  <ProgramInformation><Title><![CDATA[<BaseURL>x</BaseURL>]]></Title></ProgramInformation>
  <ProgramInformation lang="fr"/>
  <BaseURL>sub/</BaseURL>
  <BaseURL serviceLocation="b">https://elsewhere.example/</BaseURL>
  <Location>http://origin.example/media/harbor/manifest.mpd</Location>
  <Period>
    <BaseURL>video/</BaseURL>
    <AdaptationSet>
      <Representation id="r"><BaseURL>r.mp4?a=1&amp;b=2</BaseURL></Representation>
      <Representation id="s"><BaseURL> http://origin.example/media/harbor/s.mp4 </BaseURL></Representation>
      <Representation id="t"><BaseURL>/media/harbor/t.mp4</BaseURL></Representation>
      <Representation id="u"><BaseURL>https://elsewhere.example/u.mp4</BaseURL></Representation>
    </AdaptationSet>
  </Period>
  <UTCTiming schemeIdUri="x"/>
  <ContentSteering>https://other.example/</ContentSteering>
</MPD>
`;

type Xml = Record<string, unknown>;
const parser = new XMLParser({ ignoreAttributes: false, preserveOrder: true });

function childrenOfMpd(text: string): { readonly name: string; readonly text: string; readonly attributes: Xml }[] {
  expect(XMLValidator.validate(text)).toBe(true);
  const mpd = (parser.parse(text) as Xml[]).find((node) => 'MPD' in node)!;
  return (mpd['MPD'] as Xml[]).map((node) => {
    const name = Object.keys(node).find((key) => key !== ':@')!;
    const inner = (node[name] as Xml[])[0]?.['#text'];
    return { name, text: typeof inner === 'string' ? inner : '', attributes: (node[':@'] ?? {}) as Xml };
  });
}

const titles = join(packageRoot, 'ops', 'media', 'titles');
const samples = ['harbor', 'meadow']
  .map((title) => join(titles, title, 'manifest.mpd'))
  .filter((file) => existsSync(file))
  .map((file): [string, string] => [file.slice(titles.length), readFileSync(file, 'utf8')]);

const MINIMAL = '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>';

describe('a steered MPD', () => {
  it.each<[string, string]>([['a minimal MPD', MINIMAL], ['an unusual MPD', UNUSUAL], ...samples])(
    '%s has a BaseURL per pathway before everything but ProgramInformation, and ContentSteering last',
    (_, text) => {
      const children = childrenOfMpd(steerDash(text, steering));
      const names = children.map(({ name }) => name).filter((name) => name !== '#text');
      const heads = names.filter((name) => name === 'ProgramInformation').length;
      expect(names.slice(heads, heads + 2)).toEqual(['BaseURL', 'BaseURL']);
      expect(names.indexOf('ContentSteering')).toBe(names.length - 1);
      expect(names.filter((name) => name === 'BaseURL')).toHaveLength(2);
      const bases = children.filter(({ name }) => name === 'BaseURL');
      expect(bases.map(({ attributes }) => attributes['@_serviceLocation'])).toEqual(['alpha', 'origin']);
      const steer = children.at(-1)!;
      expect(steer.attributes).toEqual({ '@_defaultServiceLocation': 'alpha', '@_queryBeforeStart': 'false' });
      expect(steer.text).toBe(steering.serverUri);
    },
  );

  it('points at the directory of the manifest on each pathway', () => {
    expect(
      childrenOfMpd(steerDash(MINIMAL, steering))
        .filter(({ name }) => name === 'BaseURL')
        .map(({ text }) => text),
    ).toEqual(['http://127.0.0.2:8080/~abcdefghij012345/harbor/', 'http://origin.example/media/harbor/']);
  });

  it('resolves its own BaseURL, keeps relative ones further down, and repeats absolute ones per pathway', () => {
    const out = steerDash(UNUSUAL, steering);
    expect(out).toContain(
      '<BaseURL serviceLocation="alpha">http://127.0.0.2:8080/~abcdefghij012345/harbor/sub/</BaseURL>',
    );
    expect(out).toContain('<BaseURL>video/</BaseURL>');
    expect(out).toContain('<BaseURL>r.mp4?a=1&amp;b=2</BaseURL>');
    for (const file of ['s.mp4', 't.mp4'])
      expect(out).toContain(
        `<BaseURL serviceLocation="alpha">http://127.0.0.2:8080/~abcdefghij012345/harbor/${file}</BaseURL>` +
          `<BaseURL serviceLocation="origin">http://origin.example/media/harbor/${file}</BaseURL>`,
      );
    expect(out).toContain('<BaseURL>https://elsewhere.example/u.mp4</BaseURL>');
  });

  it('keeps comments and CDATA, and drops Location and its own ContentSteering', () => {
    const out = steerDash(UNUSUAL, steering);
    expect(out).toContain('<!-- <BaseURL>in a comment</BaseURL> -->');
    expect(out).toContain('<![CDATA[<BaseURL>x</BaseURL>]]>');
    expect(out).toContain('note="a > b"');
    expect(out).not.toContain('<Location>');
    expect(out).not.toContain('other.example');
  });

  it('uses the namespace prefix of the MPD', () => {
    const out = steerDash('<d:MPD xmlns:d="urn:mpeg:dash:schema:mpd:2011"><d:Period></d:Period></d:MPD>', steering);
    expect(out).toContain('<d:BaseURL serviceLocation="alpha">');
    expect(out).toContain('</d:ContentSteering>');
  });

  it('is refused without an MPD element at the root', () => {
    expect(() => steerDash('<html></html>', steering)).toThrow(expect.objectContaining({ code: 'manifest_invalid' }));
  });
});
