import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { renditionId } from '../../../protocol/ids.ts';
import type { ManifestDraft, Reference, RenditionDraft } from '../manifest.ts';
import { shapeTitle, type TitleShape } from '../draft.ts';

const reference = (path: string): Reference => ({
  path,
  place: { path: '/m', line: 1 },
  endBytes: null,
  indexAt: null,
});
const draft = (id: string, segments: readonly string[], more: Partial<RenditionDraft> = {}): RenditionDraft => ({
  id,
  kind: 'video',
  bandwidth: null,
  width: null,
  height: null,
  language: null,
  playlists: [],
  inits: [],
  segments: segments.map(reference),
  ...more,
});
const manifest = (
  dialect: 'hls' | 'dash',
  renditions: readonly RenditionDraft[],
  shared: readonly string[] = [],
): ManifestDraft => ({
  dialect,
  path: `/m.${dialect}`,
  text: '',
  name: null,
  durationS: 1,
  renditions,
  shared: shared.map(reference),
});
const none = new Map<string, string>();
const owners = (shape: TitleShape): Record<string, string> =>
  Object.fromEntries(shape.assets.map(({ path, rendition }) => [path, rendition]));
const ids = (shape: TitleShape): string[] => shape.renditions.map((r) => r.id);

describe('shapeTitle', () => {
  test('joins drafts over the same segments, across manifests and through a third', () => {
    const hls = manifest('hls', [draft('video/low', ['/1', '/2'], { bandwidth: 9 }), draft('other', ['/9'])]);
    const dash = manifest('dash', [
      draft('video/1', ['/2', '/3'], { bandwidth: 5, width: 640 }),
      draft('video/2', ['/3']),
    ]);
    const shape = shapeTitle([hls, dash], none);
    expect(ids(shape)).toEqual(['manifest', 'video/low', 'other']);
    // The bit rate is the rendition's own, which DASH names.
    expect(shape.renditions[1]).toMatchObject({ bandwidth: 5, width: 640 });
  });

  test('an I-frame playlist over the segments of a video joins it; one over files of its own does not', () => {
    const iframe = { kind: 'iframe', playlists: ['/i.m3u8'], bandwidth: 1 } as const;
    const joined = shapeTitle(
      [manifest('hls', [draft('i', ['/1'], iframe), draft('v', ['/1'], { bandwidth: 7 })])],
      none,
    );
    expect(joined.renditions[1]).toMatchObject({ id: 'v', kind: 'video', bandwidth: 7 });
    expect(owners(joined)['/i.m3u8']).toBe('v');
    const apart = shapeTitle([manifest('hls', [draft('v', ['/1']), draft('i', ['/2'], iframe)])], none);
    expect(apart.renditions.map((r) => r.kind)).toEqual(['manifest', 'video', 'iframe']);
  });

  test('what several renditions need goes with the manifest, and does not join them', () => {
    const inits = [reference('/init')];
    const shape = shapeTitle(
      [manifest('hls', [draft('a', ['/1'], { inits }), draft('b', ['/2'], { inits })], ['/key'])],
      none,
    );
    expect(owners(shape)).toEqual({
      '/m.hls': 'manifest',
      '/key': 'manifest',
      '/init': 'manifest',
      '/1': 'a',
      '/2': 'b',
    });
  });

  test('an init in the file of the segments is no asset of its own', () => {
    const shape = shapeTitle([manifest('hls', [draft('a', ['/all.mp4'], { inits: [reference('/all.mp4')] })])], none);
    expect(owners(shape)).toEqual({ '/m.hls': 'manifest', '/all.mp4': 'a' });
  });

  test('a rendition keeps the name that its segments had before', () => {
    const drafts = [manifest('hls', [draft('new', ['/1', '/2']), draft('second', ['/3'])])];
    expect(
      ids(
        shapeTitle(
          drafts,
          new Map([
            ['/2', 'old'],
            ['/3', 'manifest'],
          ]),
        ),
      ),
    ).toEqual(['manifest', 'old', 'second']);
    // Two that were one before: the first keeps the name.
    expect(
      ids(
        shapeTitle(
          drafts,
          new Map([
            ['/2', 'old'],
            ['/3', 'old'],
          ]),
        ),
      ),
    ).toEqual(['manifest', 'old', 'second']);
  });

  test('every asset has one owner that exists, and every name is a rendition id, whatever the manifests say', () => {
    const path = fc.integer({ min: 0, max: 12 }).map((n) => `/${n}`);
    const arbitraryDraft = fc
      .record({
        id: fc.string({ maxLength: 12 }),
        kind: fc.constantFrom('video', 'audio', 'text', 'iframe'),
        segments: fc.array(path, { minLength: 1, maxLength: 4 }),
        inits: fc.array(path, { maxLength: 2 }),
        playlists: fc.array(path, { maxLength: 1 }),
      })
      .map(({ id, kind, segments, inits, playlists }) =>
        draft(id, segments, { kind, playlists, inits: inits.map(reference) }),
      );
    const arbitrary = fc.tuple(
      fc.array(arbitraryDraft, { maxLength: 6 }),
      fc.array(arbitraryDraft, { maxLength: 6 }),
      fc.array(path, { maxLength: 2 }),
    );
    fc.assert(
      fc.property(arbitrary, ([hls, dash, shared]) => {
        const shape = shapeTitle([manifest('hls', hls, shared), manifest('dash', dash)], none);
        const named = [...hls, ...dash].flatMap((d) => [
          ...d.playlists,
          ...[...d.inits, ...d.segments].map((r) => r.path),
        ]);
        expect(shape.assets.map((a) => a.path).sort()).toEqual(
          [...new Set(['/m.hls', '/m.dash', ...shared, ...named])].sort(),
        );
        expect(new Set(ids(shape)).size).toBe(ids(shape).length);
        for (const id of ids(shape)) expect(renditionId.safeParse(id).success, id).toBe(true);
        for (const { rendition } of shape.assets) expect(ids(shape)).toContain(rendition);
        // Each rendition has something of its own to hold.
        const held = new Set(shape.assets.map((a) => a.rendition));
        expect([...held].sort()).toEqual([...new Set(ids(shape))].sort());
      }),
      { numRuns: 500 },
    );
  });
});
