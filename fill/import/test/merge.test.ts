// Merging manifests: which renditions are the same, which ids they get, and which assets belong to them.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { renditionId } from '../../../protocol/ids.ts';
import type { AssetReference, ParsedManifest, ParsedRendition } from '../manifest.ts';
import { mergeManifests, type MergedTitle } from '../merge.ts';

const reference = (path: string): AssetReference => ({
  path,
  location: { path: '/m', line: 1 },
  rangeEnd: null,
  sidxOffset: null,
});
const rendition = (id: string, segments: readonly string[], more: Partial<ParsedRendition> = {}): ParsedRendition => ({
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
  renditions: readonly ParsedRendition[],
  shared: readonly string[] = [],
): ParsedManifest => ({
  dialect,
  path: `/m.${dialect}`,
  text: '',
  name: null,
  durationS: 1,
  renditions,
  shared: shared.map(reference),
});
const none = new Map<string, string>();
const owners = (merged: MergedTitle): Record<string, string> =>
  Object.fromEntries(merged.assets.map(({ path, rendition }) => [path, rendition]));
const ids = (merged: MergedTitle): string[] => merged.renditions.map((r) => r.id);

describe('mergeManifests', () => {
  test('joins renditions that share segments, across manifests and transitively', () => {
    const hls = manifest('hls', [rendition('video/low', ['/1', '/2'], { bandwidth: 9 }), rendition('other', ['/9'])]);
    const dash = manifest('dash', [
      rendition('video/1', ['/2', '/3'], { bandwidth: 5, width: 640 }),
      rendition('video/2', ['/3']),
    ]);
    const merged = mergeManifests([hls, dash], none);
    expect(ids(merged)).toEqual(['manifest', 'video/low', 'other']);
    // The bit rate is that of DASH, which is the rendition's own.
    expect(merged.renditions[1]).toMatchObject({ bandwidth: 5, width: 640 });
  });

  test('joins an I-frame playlist to the video whose segments it uses, and keeps one with its own files apart', () => {
    const iframe = { kind: 'iframe', playlists: ['/i.m3u8'], bandwidth: 1 } as const;
    const joined = mergeManifests(
      [manifest('hls', [rendition('i', ['/1'], iframe), rendition('v', ['/1'], { bandwidth: 7 })])],
      none,
    );
    expect(joined.renditions[1]).toMatchObject({ id: 'v', kind: 'video', bandwidth: 7 });
    expect(owners(joined)['/i.m3u8']).toBe('v');
    const apart = mergeManifests([manifest('hls', [rendition('v', ['/1']), rendition('i', ['/2'], iframe)])], none);
    expect(apart.renditions.map((r) => r.kind)).toEqual(['manifest', 'video', 'iframe']);
  });

  test('assigns assets that several renditions need to the manifest rendition, without joining them', () => {
    const inits = [reference('/init')];
    const merged = mergeManifests(
      [manifest('hls', [rendition('a', ['/1'], { inits }), rendition('b', ['/2'], { inits })], ['/key'])],
      none,
    );
    expect(owners(merged)).toEqual({
      '/m.hls': 'manifest',
      '/key': 'manifest',
      '/init': 'manifest',
      '/1': 'a',
      '/2': 'b',
    });
  });

  test('counts an init inside the file of the segments as one asset with them', () => {
    const merged = mergeManifests(
      [manifest('hls', [rendition('a', ['/all.mp4'], { inits: [reference('/all.mp4')] })])],
      none,
    );
    expect(owners(merged)).toEqual({ '/m.hls': 'manifest', '/all.mp4': 'a' });
  });

  test('keeps the id that a rendition had in the previous revision', () => {
    const manifests = [manifest('hls', [rendition('new', ['/1', '/2']), rendition('second', ['/3'])])];
    expect(
      ids(
        mergeManifests(
          manifests,
          new Map([
            ['/2', 'old'],
            ['/3', 'manifest'],
          ]),
        ),
      ),
    ).toEqual(['manifest', 'old', 'second']);
    // Of two renditions that were one before, the first keeps the id.
    expect(
      ids(
        mergeManifests(
          manifests,
          new Map([
            ['/2', 'old'],
            ['/3', 'old'],
          ]),
        ),
      ),
    ).toEqual(['manifest', 'old', 'second']);
  });

  test('assigns every asset to one existing rendition with a valid id, for arbitrary manifests', () => {
    const path = fc.integer({ min: 0, max: 12 }).map((n) => `/${n}`);
    const arbitraryRendition = fc
      .record({
        id: fc.string({ maxLength: 12 }),
        kind: fc.constantFrom('video', 'audio', 'text', 'iframe'),
        segments: fc.array(path, { minLength: 1, maxLength: 4 }),
        inits: fc.array(path, { maxLength: 2 }),
        playlists: fc.array(path, { maxLength: 1 }),
      })
      .map(({ id, kind, segments, inits, playlists }) =>
        rendition(id, segments, { kind, playlists, inits: inits.map(reference) }),
      );
    const arbitrary = fc.tuple(
      fc.array(arbitraryRendition, { maxLength: 6 }),
      fc.array(arbitraryRendition, { maxLength: 6 }),
      fc.array(path, { maxLength: 2 }),
    );
    fc.assert(
      fc.property(arbitrary, ([hls, dash, shared]) => {
        const merged = mergeManifests([manifest('hls', hls, shared), manifest('dash', dash)], none);
        const named = [...hls, ...dash].flatMap((r) => [
          ...r.playlists,
          ...[...r.inits, ...r.segments].map(({ path }) => path),
        ]);
        expect(merged.assets.map((a) => a.path).sort()).toEqual(
          [...new Set(['/m.hls', '/m.dash', ...shared, ...named])].sort(),
        );
        expect(new Set(ids(merged)).size).toBe(ids(merged).length);
        for (const id of ids(merged)) expect(renditionId.safeParse(id).success, id).toBe(true);
        for (const { rendition } of merged.assets) expect(ids(merged)).toContain(rendition);
        // Each rendition has an asset of its own.
        const held = new Set(merged.assets.map((a) => a.rendition));
        expect([...held].sort()).toEqual([...new Set(ids(merged))].sort());
      }),
      { numRuns: 500 },
    );
  });
});
