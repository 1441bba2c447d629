// Imports from an origin over HTTP: what the catalog holds afterwards, and what it keeps if an import fails.

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
import { ImportQueue } from '../import-queue.ts';
import { METRICS } from '../../metrics.ts';
import { openDatabase, type Database } from '../../database.ts';
import { OriginDouble, putFilm, type Misbehaviour } from '../../test/origin-double.ts';

const TITLES = join(packageRoot, 'ops', 'media', 'titles');

let directory: string;
let origin: OriginDouble;
let url: string;
let database: Database;
let catalog: Catalog;
let imports: ImportQueue;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'larder-import-'));
  origin = new OriginDouble();
  url = await origin.start();
  await open();
});

afterEach(async () => {
  await imports.close();
  await database.close();
  await origin.stop();
  rmSync(directory, { recursive: true });
});

async function open(): Promise<void> {
  database = await openDatabase(directory);
  catalog = await Catalog.open(database);
  imports = await ImportQueue.open({
    database,
    catalog,
    origin: url,
    concurrency: 4,
    clock: systemClock,
    log: silentLog,
    metrics: createMetrics(METRICS),
  });
}

async function runImport(path: string, title: string | null = null): Promise<ImportProgress> {
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

function renditionsOf(title: Title): Record<string, string> {
  return Object.fromEntries(title.renditions.map((r) => [r.id, `${r.kind} ${r.assets}`]));
}

/** The digest list as the protocol defines it, computed independently of the code under test. */
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
  const putTitle = (name: string): void => origin.putTree(join(TITLES, name), `/${name}`);

  test('harbor: HLS and then DASH over the same segments make one title with the same renditions', async () => {
    putTitle('harbor');
    expect(await runImport('/harbor/master.m3u8')).toMatchObject({ state: 'done', title: 'harbor', revision: 1 });
    const hls = renditionsOf(catalog.get('harbor'));
    expect(Object.keys(hls)).toEqual([
      'manifest',
      'audio/en',
      'audio/fr',
      'text/en',
      'video/144p',
      'video/240p',
      'video/360p',
    ]);
    expect(await runImport('/harbor/manifest.mpd')).toMatchObject({ state: 'done', revision: 2 });
    const both = titleSchema.parse(catalog.get('harbor'));
    expect(renditionsOf(both)).toEqual({ ...hls, manifest: 'manifest 2' });
    expect(both.manifests.map((m) => m.dialect)).toEqual(['hls', 'dash']);
    expect(both.durationS).toBeCloseTo(128, 0);
    // The second import fetched no segment, because the origin answered 304.
    const segments = origin.log.filter((row) => row.path.endsWith('.m4s'));
    expect(segments.filter((row) => row.status === 200)).toHaveLength(segments.length / 2);
    // Every file of the title is one asset, with its size and digests.
    const assets = await assetsOf('harbor');
    expect(assets.map((a) => a.path).sort()).toEqual([...origin.files.keys()].sort());
    for (const asset of assets) {
      const body = origin.files.get(asset.path)!;
      expect([asset.path, asset.bytes, asset.digest]).toEqual([asset.path, body.length, digestOf(body)]);
    }
  });

  test('meadow: one file per rendition, used by HLS in byte ranges and by DASH with an index, is one asset', async () => {
    putTitle('meadow');
    expect(await runImport('/meadow/manifest.mpd')).toMatchObject({ state: 'done' });
    expect(await runImport('/meadow/master.m3u8')).toMatchObject({ state: 'done' });
    expect(renditionsOf(catalog.get('meadow'))).toEqual({
      manifest: 'manifest 2',
      'audio/en': 'audio 2',
      'video/144p': 'video 2',
      'video/240p': 'video 2',
      'video/360p': 'video 2',
    });
    // The index was checked where the MPD says it is.
    expect(origin.log.filter((row) => row.status === 206).length).toBeGreaterThan(0);
  });

  test('tunnel: the key belongs to the manifest rendition, and playlists are stored unchanged', async () => {
    putTitle('tunnel');
    expect(await runImport('/tunnel/master.m3u8')).toMatchObject({ state: 'done' });
    expect(renditionsOf(catalog.get('tunnel'))).toMatchObject({ manifest: 'manifest 2', '144p': 'video 11' });
    const assets = await assetsOf('tunnel');
    expect(assets.find((a) => a.path === '/tunnel/key.bin')?.rendition).toBe('manifest');
    const playlist = readFileSync(join(TITLES, 'tunnel', '144p', 'index.m3u8'));
    expect(assets.find((a) => a.path === '/tunnel/144p/index.m3u8')?.digest).toEqual(digestOf(playlist));
  });
});

describe('an import', () => {
  beforeEach(() => putFilm(origin, '/film/'));

  test('computes a digest per MiB of an asset', async () => {
    const body = Buffer.alloc(2 * DIGEST_CHUNK_BYTES + 7, 'larder');
    origin.put('/film/video/low/1.m4s', body);
    await runImport('/film/master.m3u8');
    const asset = (await assetsOf('film')).find((a) => a.path === '/film/video/low/1.m4s')!;
    expect(asset.digest).toEqual(digestOf(body));
    expect(asset.digest.chunks).toHaveLength(3);
  });

  test('derives the validator from the digest if the origin has no strong ETag', async () => {
    origin.weakEtags = true;
    await runImport('/film/master.m3u8');
    for (const asset of await assetsOf('film')) {
      expect(asset.validator).toBe('digest');
      expect(asset.etag).toBe(`"${asset.digest.root.slice(0, 32)}"`);
    }
    // Without strong ETags everything is fetched again, and is found unchanged.
    expect(await runImport('/film/master.m3u8')).toMatchObject({ state: 'done', revision: 1 });
    expect(origin.statusesOf('/film/video/low/1.m4s')).toEqual([200, 200]);
  });

  test('gives an asset a tag of its own when the origin sends other bytes under the same one', async () => {
    const path = '/film/video/low/1.m4s';
    const segment = async (): Promise<CatalogAsset> => (await assetsOf('film')).find((each) => each.path === path)!;
    await runImport('/film/master.m3u8');
    const before = await segment();
    const changed = Buffer.from('other bytes');
    origin.misbehaviours.set(path, (_, response) => {
      response.writeHead(200, { etag: before.etag, 'content-length': changed.length }).end(changed);
    });
    expect(await runImport('/film/master.m3u8')).toMatchObject({ state: 'done', revision: 2 });
    const after = await segment();
    expect(after).toMatchObject({ validator: 'digest', etag: `"${after.digest.root.slice(0, 32)}"` });
    expect(await runImport('/film/master.m3u8')).toMatchObject({ state: 'done', revision: 2 });
    expect(await segment()).toEqual(after);
    // The tag is not believed again, which a client may have seen on the first bytes.
    changed.write('still other');
    await runImport('/film/master.m3u8');
    expect(await segment()).toMatchObject({ validator: 'digest' });
  });

  test('makes a new revision, without the old assets, only if something has changed', async () => {
    await runImport('/film/master.m3u8');
    expect(await runImport('/film/master.m3u8')).toMatchObject({ state: 'done', revision: 1 });
    const before = await assetsOf('film');
    putFilm(origin, '/film/', 'y');
    expect(await runImport('/film/master.m3u8')).toMatchObject({ state: 'done', revision: 2 });
    const after = await assetsOf('film');
    expect(after.map((a) => a.path)).toEqual(before.map((a) => a.path));
    expect(after.find((a) => a.path.endsWith('low/1.m4s'))!.etag).not.toBe(
      before.find((a) => a.path.endsWith('low/1.m4s'))!.etag,
    );
    expect(catalog.page(0)).toMatchObject({ revision: 2, more: false });
    expect(catalog.page(1).titles.map((t) => t.id)).toEqual(['film']);
    expect(catalog.page(2).titles).toEqual([]);
  });

  test('keeps the ids of renditions when HLS is added to a title imported from DASH', async () => {
    await runImport('/film/manifest.mpd');
    const dash = catalog.get('film').renditions.map((r) => r.id);
    await runImport('/film/master.m3u8');
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

  test('drops a second manifest that the origin no longer has', async () => {
    await runImport('/film/master.m3u8');
    await runImport('/film/manifest.mpd');
    origin.files.delete('/film/manifest.mpd');
    expect(await runImport('/film/master.m3u8')).toMatchObject({ state: 'done', revision: 3 });
    expect(catalog.get('film').manifests.map((m) => m.dialect)).toEqual(['hls']);
  });

  test('assigns an init that several renditions share to the manifest rendition', async () => {
    for (const name of ['low', 'high']) {
      const path = `/film/video/${name}/index.m3u8`;
      origin.put(path, origin.files.get(path)!.toString().replace('init.mp4', '../../init.mp4'));
    }
    origin.put('/film/init.mp4', 'shared');
    await runImport('/film/master.m3u8');
    expect((await assetsOf('film')).find((a) => a.path === '/film/init.mp4')?.rendition).toBe('manifest');
  });

  test('retries after a temporary failure of the origin', async () => {
    let failures = 2;
    origin.misbehaviours.set('/film/audio/en/1.m4s', (_, response, body) => {
      failures -= 1;
      if (failures >= 0) response.destroy();
      else response.writeHead(200, { 'content-length': body.length }).end(body);
    });
    expect(await runImport('/film/master.m3u8')).toMatchObject({ state: 'done', fault: null });
  });

  const truncated: Misbehaviour = (_, response, body) => {
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
    ['a segment is truncated', '/film/audio/en/2.m4s', truncated, 'origin_unreachable', '/film/audio/en/2.m4s'],
    [
      'a segment is compressed',
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
      'a playlist is not UTF-8',
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
  ])('fails and changes nothing if %s', async (_, path, misbehaviour, code, message) => {
    await runImport('/film/manifest.mpd');
    const before = JSON.stringify([catalog.page(0), await assetsOf('film')]);
    putFilm(origin, '/film/', 'y');
    origin.misbehaviours.set(path, misbehaviour);
    const progress = await runImport('/film/master.m3u8');
    expect(progress).toMatchObject({ state: 'failed', fault: { code } });
    expect(progress.fault!.message).toContain(message);
    expect(progress.fault!.help).not.toBe('');
    expect(JSON.stringify([catalog.page(0), await assetsOf('film')])).toBe(before);
  });

  test('refuses a byte range beyond the end of its file and names the line', async () => {
    origin.put(
      '/film/video/low/index.m3u8',
      '#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n#EXT-X-BYTERANGE:10@999999\n1.m4s\n#EXT-X-ENDLIST',
    );
    expect((await runImport('/film/master.m3u8')).fault?.message).toMatch(
      /low\/index.m3u8 line 5: the byte range ends at 1000009, but \S+ has \d+ bytes/,
    );
  });

  test('refuses an index that is not at the offset that the MPD gives', async () => {
    origin.put(
      '/film/one.mpd',
      '<MPD type="static" mediaPresentationDuration="PT8S"><Period><AdaptationSet contentType="video"><Representation id="v"><BaseURL>video/low/1.m4s</BaseURL>\n<SegmentBase indexRange="10-50"/></Representation></AdaptationSet></Period></MPD>',
    );
    expect((await runImport('/film/one.mpd')).fault?.message).toBe(
      '/film/one.mpd line 2 column 1: indexRange: there is no sidx box at byte 10 of /film/video/low/1.m4s',
    );
  });

  test('does not check an index if the origin serves no ranges', async () => {
    origin.put(
      '/film/one.mpd',
      '<MPD type="static" mediaPresentationDuration="PT8S"><Period><AdaptationSet contentType="video"><Representation id="v"><BaseURL>video/low/1.m4s</BaseURL><SegmentBase indexRange="10-50"/></Representation></AdaptationSet></Period></MPD>',
    );
    origin.misbehaviours.set(
      '/film/video/low/1.m4s',
      (_, response, body) => void response.writeHead(200, { 'content-length': body.length }).end(body),
    );
    expect(await runImport('/film/one.mpd')).toMatchObject({ state: 'done' });
  });

  test('refuses a title with too many renditions', async () => {
    const sets = Array.from(
      { length: 200 },
      (_, n) => `<Representation id="${n}"><BaseURL>${n}.mp4</BaseURL></Representation>`,
    );
    origin.put(
      '/film/many.mpd',
      `<MPD type="static" mediaPresentationDuration="PT8S"><Period><AdaptationSet contentType="video">${sets.join('')}</AdaptationSet></Period></MPD>`,
    );
    expect((await runImport('/film/many.mpd')).fault).toMatchObject({
      code: 'manifest_invalid',
      message: expect.stringContaining('name 200 renditions; a title has at most 199'),
    });
  });

  test.each([
    ['http://127.0.0.1:1/film/master.m3u8', 'a title must lie below the origin'],
    ['ORIGIN/film/', 'the URL of a manifest file'],
    ['ORIGIN/film/master.m3u8?x=1', 'the URL of a manifest file'],
    ['ORIGIN/%C3%BC/master.m3u8', 'no title id can be made of'],
  ])('is refused for the URL %s', async (asked, message) => {
    await expect(imports.submit({ url: asked.replace('ORIGIN', url), title: null })).rejects.toMatchObject({
      code: 'body_invalid',
      message: expect.stringContaining(message),
    });
  });

  test('is refused if another title has the same base, one above it or one below it', async () => {
    await runImport('/film/master.m3u8');
    const conflict = { code: 'state_conflict', message: expect.stringContaining('film') };
    await expect(imports.submit({ url: `${url}/film/manifest.mpd`, title: 'other' })).rejects.toMatchObject(conflict);
    await expect(imports.submit({ url: `${url}/film/video/x.mpd`, title: null })).rejects.toMatchObject(conflict);
    await expect(imports.submit({ url: `${url}/top.mpd`, title: null })).rejects.toMatchObject(conflict);
    await expect(imports.submit({ url: `${url}/elsewhere/m.mpd`, title: 'film' })).rejects.toMatchObject(conflict);
  });

  test('uses the title id given, else the name of the folder, else that of the file', async () => {
    putFilm(origin, '/Some/Deep.Folder/');
    expect(await runImport('/Some/Deep.Folder/master.m3u8')).toMatchObject({ title: 'deep.folder', state: 'done' });
    expect(await runImport('/film/master.m3u8', 'the-film')).toMatchObject({ title: 'the-film', state: 'done' });
    await expect(imports.submit({ url: `${url}/alone.m3u8`, title: null })).rejects.toMatchObject({
      code: 'state_conflict',
    });
  });

  test('reports its progress, and the catalog shows no part of the title until it is done', async () => {
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

  test('starts again with the service if that was stopped meanwhile', async () => {
    origin.gate = () => new Promise(() => undefined);
    const id = await imports.submit({ url: `${url}/film/master.m3u8`, title: null });
    await imports.close();
    await database.close();
    origin.gate = async () => undefined;
    await open();
    expect(await ended(id)).toMatchObject({ state: 'done', revision: 1 });
  });

  test('can reuse the base of a removed title, whose assets are gone', async () => {
    await runImport('/film/master.m3u8');
    await catalog.remove('film');
    expect(catalog.page(0)).toMatchObject({ revision: 2, titles: [], removed: ['film'] });
    expect(await database.keys({ gte: 'asset!', lt: 'asset"' }).all()).toEqual([]);
    expect(await runImport('/film/master.m3u8', 'renamed')).toMatchObject({ state: 'done', revision: 3 });
    await expect(catalog.remove('film')).rejects.toMatchObject({
      code: 'not_found',
      message: expect.stringContaining('there are renamed'),
    });
  });
});
