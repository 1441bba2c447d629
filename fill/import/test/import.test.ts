import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  assetPage,
  DIGEST_CHUNK_BYTES,
  title as titleSchema,
  type CatalogAsset,
  type Title,
} from '../../../protocol/catalog.ts';
import { importProgress, type ImportProgress } from '../../../protocol/answers.ts';
import { systemClock } from '../../../runtime/clock.ts';
import { silentLog } from '../../../runtime/log.ts';
import { createMetrics } from '../../../runtime/metrics.ts';
import { packageRoot } from '../../../runtime/paths.ts';
import { Catalog } from '../../catalog.ts';
import { Imports } from '../import-queue.ts';
import { METRICS } from '../../metrics.ts';
import { openState, type State } from '../../state.ts';
import { OriginDouble, putFilm, type Misbehaviour } from '../../test/origin-double.ts';

const TITLES = join(packageRoot, 'ops', 'media', 'titles');

let directory: string;
let origin: OriginDouble;
let url: string;
let state: State;
let catalog: Catalog;
let imports: Imports;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'larder-import-'));
  origin = new OriginDouble();
  url = await origin.start();
  await open();
});

afterEach(async () => {
  await imports.close();
  await state.close();
  await origin.stop();
  rmSync(directory, { recursive: true });
});

async function open(): Promise<void> {
  state = await openState(directory);
  catalog = await Catalog.open(state);
  imports = await Imports.open({
    state,
    catalog,
    origin: url,
    concurrency: 4,
    clock: systemClock,
    log: silentLog,
    metrics: createMetrics(METRICS),
  });
}

async function importing(path: string, title: string | null = null): Promise<ImportProgress> {
  const id = await imports.submit({ url: url + path, title });
  return ended(id);
}

async function ended(id: string): Promise<ImportProgress> {
  await expect.poll(() => imports.progress(id).state, { timeout: 20_000, interval: 5 }).not.toBe('running');
  return importProgress.parse(imports.progress(id));
}

async function assetsOf(id: string): Promise<CatalogAsset[]> {
  return assetPage.parse(await catalog.assetPage(id, 0)).assets;
}

function shape(title: Title): Record<string, string> {
  return Object.fromEntries(title.renditions.map((r) => [r.id, `${r.kind} ${r.assets}`]));
}

/** The digest by the protocol's words, computed another way than the code does. */
function digestOf(body: Buffer): CatalogAsset['digest'] {
  const count = Math.ceil(body.length / DIGEST_CHUNK_BYTES);
  const parts = Array.from({ length: count }, (_, i) =>
    createHash('sha256')
      .update(body.subarray(i * DIGEST_CHUNK_BYTES, (i + 1) * DIGEST_CHUNK_BYTES))
      .digest(),
  );
  const root = createHash('sha256').update(Buffer.concat(parts)).digest('hex');
  return { root, chunks: parts.map((part) => part.toString('hex')) };
}

describe.runIf(existsSync(TITLES))('the sample titles', () => {
  const files = (name: string): void => origin.putTree(join(TITLES, name), `/${name}`);

  test('harbor: HLS, then DASH over the same segments, is one title with the same renditions', async () => {
    files('harbor');
    expect(await importing('/harbor/master.m3u8')).toMatchObject({ state: 'done', title: 'harbor', revision: 1 });
    const hls = shape(catalog.get('harbor'));
    expect(Object.keys(hls)).toEqual([
      'manifest',
      'audio/en',
      'audio/fr',
      'text/en',
      'video/144p',
      'video/240p',
      'video/360p',
    ]);
    expect(await importing('/harbor/manifest.mpd')).toMatchObject({ state: 'done', revision: 2 });
    const both = titleSchema.parse(catalog.get('harbor'));
    expect(shape(both)).toEqual({ ...hls, manifest: 'manifest 2' });
    expect(both.manifests.map((m) => m.dialect)).toEqual(['hls', 'dash']);
    expect(both.durationS).toBeCloseTo(128, 0);
    // The second import read no segment: the origin said that none has changed.
    const segments = origin.log.filter((row) => row.path.endsWith('.m4s'));
    expect(segments.filter((row) => row.status === 200)).toHaveLength(segments.length / 2);
    // Every file of the title is an asset, once, with its true size and digests.
    const assets = await assetsOf('harbor');
    expect(assets.map((a) => a.path).sort()).toEqual([...origin.files.keys()].sort());
    for (const asset of assets) {
      const body = origin.files.get(asset.path)!;
      expect([asset.path, asset.bytes, asset.digest]).toEqual([asset.path, body.length, digestOf(body)]);
    }
  });

  test('meadow: one file per rendition, HLS by byte range and DASH by index, is one asset each', async () => {
    files('meadow');
    expect(await importing('/meadow/manifest.mpd')).toMatchObject({ state: 'done' });
    expect(await importing('/meadow/master.m3u8')).toMatchObject({ state: 'done' });
    expect(shape(catalog.get('meadow'))).toEqual({
      manifest: 'manifest 2',
      'audio/en': 'audio 2',
      'video/144p': 'video 2',
      'video/240p': 'video 2',
      'video/360p': 'video 2',
    });
    // The index was looked for where the MPD says.
    expect(origin.log.filter((row) => row.status === 206).length).toBeGreaterThan(0);
  });

  test('tunnel: the key belongs to the manifest rendition and the playlists are carried unchanged', async () => {
    files('tunnel');
    expect(await importing('/tunnel/master.m3u8')).toMatchObject({ state: 'done' });
    expect(shape(catalog.get('tunnel'))).toMatchObject({ manifest: 'manifest 2', '144p': 'video 11' });
    const assets = await assetsOf('tunnel');
    expect(assets.find((a) => a.path === '/tunnel/key.bin')?.rendition).toBe('manifest');
    const playlist = readFileSync(join(TITLES, 'tunnel', '144p', 'index.m3u8'));
    expect(assets.find((a) => a.path === '/tunnel/144p/index.m3u8')?.digest).toEqual(digestOf(playlist));
  });
});

describe('an import', () => {
  beforeEach(() => putFilm(origin, '/film/'));

  test('digests assets of several MiB piece by piece', async () => {
    const body = Buffer.alloc(2 * DIGEST_CHUNK_BYTES + 7, 'larder');
    origin.put('/film/video/low/1.m4s', body);
    await importing('/film/master.m3u8');
    const asset = (await assetsOf('film')).find((a) => a.path === '/film/video/low/1.m4s')!;
    expect(asset.digest).toEqual(digestOf(body));
    expect(asset.digest.chunks).toHaveLength(3);
  });

  test('makes a validator of the digest where the origin has no strong ETag', async () => {
    origin.weak = true;
    await importing('/film/master.m3u8');
    for (const asset of await assetsOf('film')) {
      expect(asset.validator).toBe('digest');
      expect(asset.etag).toBe(`"${asset.digest.root.slice(0, 32)}"`);
    }
    // Nothing could be said unchanged, and yet nothing had changed.
    expect(await importing('/film/master.m3u8')).toMatchObject({ state: 'done', revision: 1 });
    expect(origin.fetched('/film/video/low/1.m4s')).toEqual([200, 200]);
  });

  test('of what has not changed makes no revision; of what has changed, a new one without the old assets', async () => {
    await importing('/film/master.m3u8');
    expect(await importing('/film/master.m3u8')).toMatchObject({ state: 'done', revision: 1 });
    const before = await assetsOf('film');
    putFilm(origin, '/film/', 'y');
    expect(await importing('/film/master.m3u8')).toMatchObject({ state: 'done', revision: 2 });
    const after = await assetsOf('film');
    expect(after.map((a) => a.path)).toEqual(before.map((a) => a.path));
    expect(after.find((a) => a.path.endsWith('low/1.m4s'))!.etag).not.toBe(
      before.find((a) => a.path.endsWith('low/1.m4s'))!.etag,
    );
    expect(catalog.page(0)).toMatchObject({ revision: 2, more: false });
    expect(catalog.page(1).titles.map((t) => t.id)).toEqual(['film']);
    expect(catalog.page(2).titles).toEqual([]);
  });

  test('keeps the names of renditions when HLS joins a title that was imported as DASH', async () => {
    await importing('/film/manifest.mpd');
    const dash = catalog.get('film').renditions.map((r) => r.id);
    await importing('/film/master.m3u8');
    expect(
      catalog
        .get('film')
        .renditions.map((r) => r.id)
        .sort(),
    ).toEqual([...dash].sort());
    expect(catalog.get('film').renditions.find((r) => r.id === 'video/low')).toMatchObject({
      bandwidth: 2500,
      width: 256,
    });
  });

  test('forgets a second manifest that the origin no longer has', async () => {
    await importing('/film/master.m3u8');
    await importing('/film/manifest.mpd');
    origin.files.delete('/film/manifest.mpd');
    expect(await importing('/film/master.m3u8')).toMatchObject({ state: 'done', revision: 3 });
    expect(catalog.get('film').manifests.map((m) => m.dialect)).toEqual(['hls']);
  });

  test('an init that several renditions share goes with the manifest', async () => {
    for (const name of ['low', 'high']) {
      const path = `/film/video/${name}/index.m3u8`;
      origin.put(path, origin.files.get(path)!.toString().replace('init.mp4', '../../init.mp4'));
    }
    origin.put('/film/init.mp4', 'shared');
    await importing('/film/master.m3u8');
    expect((await assetsOf('film')).find((a) => a.path === '/film/init.mp4')?.rendition).toBe('manifest');
  });

  test('tries again where the origin stumbles', async () => {
    let stumbles = 2;
    origin.misbehaviours.set('/film/audio/en/1.m4s', (_, response, body) => {
      stumbles -= 1;
      if (stumbles >= 0) response.destroy();
      else response.writeHead(200, { 'content-length': body.length }).end(body);
    });
    expect(await importing('/film/master.m3u8')).toMatchObject({ state: 'done', fault: null });
  });

  const cutOff: Misbehaviour = (_, response, body) => {
    response.writeHead(200, { 'content-length': body.length + 5 });
    response.write(body);
    systemClock.setTimeout(() => response.destroy(), 5);
  };
  test.each<[string, string, Misbehaviour, string, string]>([
    [
      'a segment is missing',
      '/film/audio/en/2.m4s',
      (_, r) => void r.writeHead(404).end(),
      'origin_refused',
      'the origin answered 404; it is named by /film/audio/en/index.m3u8 line 7',
    ],
    [
      'a playlist is missing',
      '/film/video/high/index.m3u8',
      (_, r) => void r.writeHead(404).end(),
      'origin_refused',
      'it is named by /film/master.m3u8 line 6',
    ],
    [
      'the manifest is missing',
      '/film/master.m3u8',
      (_, r) => void r.writeHead(404).end(),
      'origin_refused',
      '/film/master.m3u8: the origin answered 404',
    ],
    [
      'a segment moved',
      '/film/audio/en/2.m4s',
      (_, r) => void r.writeHead(302, { location: '/elsewhere' }).end(),
      'origin_refused',
      'answered 302 to /elsewhere, which is not followed',
    ],
    ['a segment is cut off', '/film/audio/en/2.m4s', cutOff, 'origin_unreachable', '/film/audio/en/2.m4s'],
    [
      'a segment comes compressed',
      '/film/audio/en/2.m4s',
      (_, r, b) => void r.writeHead(200, { 'content-encoding': 'gzip', 'content-length': b.length }).end(b),
      'origin_protocol_error',
      'Content-Encoding gzip',
    ],
    [
      'a segment has no length',
      '/film/audio/en/2.m4s',
      (_, r, b) => {
        r.useChunkedEncodingByDefault = false;
        r.shouldKeepAlive = false;
        r.writeHead(200, { connection: 'close' });
        r.end(b);
      },
      'origin_protocol_error',
      'without a length',
    ],
    [
      'the origin fails',
      '/film/audio/en/2.m4s',
      (_, r) => void r.writeHead(503).end(),
      'origin_unreachable',
      'the origin answered 503',
    ],
    [
      'a playlist is no text',
      '/film/video/low/index.m3u8',
      (_, r) => void r.writeHead(200, { 'content-length': 2 }).end(Buffer.from([0xff, 0xfe])),
      'manifest_invalid',
      '/film/video/low/index.m3u8 line 1: the document is not UTF-8',
    ],
    [
      'a manifest is too large',
      '/film/master.m3u8',
      (_, r) => void r.writeHead(200, { 'content-length': 2 ** 20 + 1 }).end(Buffer.alloc(2 ** 20 + 1, 'x')),
      'manifest_invalid',
      'exceeds 1048576 bytes',
    ],
  ])('fails and changes nothing where %s', async (_, path, misbehaviour, code, message) => {
    await importing('/film/manifest.mpd');
    const before = JSON.stringify([catalog.page(0), await assetsOf('film')]);
    putFilm(origin, '/film/', 'y');
    origin.misbehaviours.set(path, misbehaviour);
    const progress = await importing('/film/master.m3u8');
    expect(progress).toMatchObject({ state: 'failed', fault: { code } });
    expect(progress.fault!.message).toContain(message);
    expect(progress.fault!.help).not.toBe('');
    expect(JSON.stringify([catalog.page(0), await assetsOf('film')])).toBe(before);
  });

  test('refuses a byte range beyond the end of its file, naming the line', async () => {
    origin.put(
      '/film/video/low/index.m3u8',
      '#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n#EXT-X-BYTERANGE:10@999999\n1.m4s\n#EXT-X-ENDLIST',
    );
    expect((await importing('/film/master.m3u8')).fault?.message).toMatch(
      /low\/index.m3u8 line 5: the byte range ends at 1000009, but \S+ has \d+ bytes/,
    );
  });

  test('refuses an index that is not where the MPD says', async () => {
    origin.put(
      '/film/one.mpd',
      '<MPD type="static" mediaPresentationDuration="PT8S"><Period><AdaptationSet contentType="video"><Representation id="v"><BaseURL>video/low/1.m4s</BaseURL>\n<SegmentBase indexRange="10-50"/></Representation></AdaptationSet></Period></MPD>',
    );
    expect((await importing('/film/one.mpd')).fault?.message).toBe(
      '/film/one.mpd line 2 column 1: indexRange: there is no sidx box at byte 10 of /film/video/low/1.m4s',
    );
  });

  test('takes an index on trust from an origin that serves no ranges', async () => {
    origin.put(
      '/film/one.mpd',
      '<MPD type="static" mediaPresentationDuration="PT8S"><Period><AdaptationSet contentType="video"><Representation id="v"><BaseURL>video/low/1.m4s</BaseURL><SegmentBase indexRange="10-50"/></Representation></AdaptationSet></Period></MPD>',
    );
    origin.misbehaviours.set(
      '/film/video/low/1.m4s',
      (_, response, body) => void response.writeHead(200, { 'content-length': body.length }).end(body),
    );
    expect(await importing('/film/one.mpd')).toMatchObject({ state: 'done' });
  });

  test('of a title with too many renditions is refused', async () => {
    const sets = Array.from(
      { length: 200 },
      (_, n) => `<Representation id="${n}"><BaseURL>${n}.mp4</BaseURL></Representation>`,
    );
    origin.put(
      '/film/many.mpd',
      `<MPD type="static" mediaPresentationDuration="PT8S"><Period><AdaptationSet contentType="video">${sets.join('')}</AdaptationSet></Period></MPD>`,
    );
    expect((await importing('/film/many.mpd')).fault).toMatchObject({
      code: 'manifest_invalid',
      message: expect.stringContaining('name 200 renditions; a title has at most 199'),
    });
  });

  test.each([
    ['http://127.0.0.1:1/film/master.m3u8', 'a title must lie below the origin'],
    ['ORIGIN/film/', 'the URL of a manifest file'],
    ['ORIGIN/film/master.m3u8?x=1', 'the URL of a manifest file'],
    ['ORIGIN/%C3%BC/master.m3u8', 'no title id can be made of'],
  ])('is not accepted for %s', async (asked, message) => {
    await expect(imports.submit({ url: asked.replace('ORIGIN', url), title: null })).rejects.toMatchObject({
      code: 'body_invalid',
      message: expect.stringContaining(message),
    });
  });

  test('is not accepted where another title has the place', async () => {
    await importing('/film/master.m3u8');
    const conflict = { code: 'state_conflict', message: expect.stringContaining('film') };
    await expect(imports.submit({ url: `${url}/film/manifest.mpd`, title: 'other' })).rejects.toMatchObject(conflict);
    await expect(imports.submit({ url: `${url}/film/video/x.mpd`, title: null })).rejects.toMatchObject(conflict);
    await expect(imports.submit({ url: `${url}/top.mpd`, title: null })).rejects.toMatchObject(conflict);
    await expect(imports.submit({ url: `${url}/elsewhere/m.mpd`, title: 'film' })).rejects.toMatchObject(conflict);
  });

  test('takes the title id given, else that of the folder, else that of the file', async () => {
    putFilm(origin, '/Some/Deep.Folder/');
    expect(await importing('/Some/Deep.Folder/master.m3u8')).toMatchObject({ title: 'deep.folder', state: 'done' });
    expect(await importing('/film/master.m3u8', 'the-film')).toMatchObject({ title: 'the-film', state: 'done' });
    await expect(imports.submit({ url: `${url}/alone.m3u8`, title: null })).rejects.toMatchObject({
      code: 'state_conflict',
    });
  });

  test('tells how far it is, and a title that is being imported is not visible in part', async () => {
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    origin.gate = (path) => (path.endsWith('2.m4s') ? held : Promise.resolve());
    const id = await imports.submit({ url: `${url}/film/master.m3u8`, title: null });
    await expect.poll(() => imports.progress(id).assetsDone, { interval: 5 }).toBeGreaterThan(4);
    const half = importProgress.parse(imports.progress(id));
    expect(half).toMatchObject({ state: 'running', assetsTotal: 13, revision: null });
    expect(half.bytesDone).toBeLessThan(half.bytesTotal);
    expect(catalog.page(0)).toMatchObject({ revision: 0, titles: [] });
    release();
    const whole = await ended(id);
    expect([whole.assetsDone, whole.bytesDone]).toEqual([whole.assetsTotal, whole.bytesTotal]);
  });

  test('starts again with the service where that was stopped under it', async () => {
    origin.gate = () => new Promise(() => undefined);
    const id = await imports.submit({ url: `${url}/film/master.m3u8`, title: null });
    await imports.close();
    await state.close();
    origin.gate = async () => undefined;
    await open();
    expect(await ended(id)).toMatchObject({ state: 'done', revision: 1 });
  });

  test('a removed title is gone with its assets, and its place is free', async () => {
    await importing('/film/master.m3u8');
    await catalog.remove('film');
    expect(catalog.page(0)).toMatchObject({ revision: 2, titles: [], removed: ['film'] });
    expect(await state.keys({ gte: 'asset!', lt: 'asset"' }).all()).toEqual([]);
    expect(await importing('/film/master.m3u8', 'renamed')).toMatchObject({ state: 'done', revision: 3 });
    await expect(catalog.remove('film')).rejects.toMatchObject({
      code: 'not_found',
      message: expect.stringContaining('there are renamed'),
    });
  });
});
