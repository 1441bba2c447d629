// A store goes from this release to the next one and back: each opens what the other has written, and no byte is fetched again. The
// next release is this one with a field that it alone writes, in every record on the disk.

import { closeSync, openSync, readdirSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { NEW_FIELD, withNewField, writeAsNextRelease } from '../../../runtime/test/next-release.ts';
import { sendRequest } from '../../test/http-client.ts';
import { noise, RunningAppliance, ScriptedOrigin } from '../../test/rig.ts';
import { decodeHead, encodeHead, HEAD_BYTES } from '../block-file.ts';
import { blockFiles } from '../layout.ts';
import { sealed, unsealed } from '../index-record.ts';

const MB = 2 ** 20;
let origin: ScriptedOrigin;
let appliance: RunningAppliance;

beforeEach(async () => {
  origin = await ScriptedOrigin.start();
  appliance = await RunningAppliance.start({ origin: origin.url });
});

afterEach(async () => {
  await appliance.stop();
  await origin.stop();
});

const put = (path: string, seed: number): Buffer =>
  origin.put(path, noise(2 * MB + 99, seed), { headers: { 'cache-control': 'max-age=3600' } });

const files = (): string[] => [...blockFiles(appliance.stores()[0]!)].filter((path) => !path.endsWith('.tmp'));

async function expectStored(assets: Readonly<Record<string, Buffer>>): Promise<void> {
  origin.requests.length = 0;
  for (const [path, bytes] of Object.entries(assets))
    expect((await sendRequest(appliance.port, { path })).body.equals(bytes)).toBe(true);
  expect(origin.requests).toEqual([]);
}

/** What the next release would have on the disk after it has written everything anew. */
async function writeAllAsNextRelease(): Promise<void> {
  const [store] = appliance.stores();
  const layout = join(store!, 'larder-store.json');
  writeFileSync(layout, JSON.stringify({ ...(JSON.parse(readFileSync(layout, 'utf8')) as object), ...NEW_FIELD }));
  for (const path of files()) {
    const head = decodeHead(readFileSync(path).subarray(0, HEAD_BYTES), path);
    const fd = openSync(path, 'r+');
    writeSync(fd, encodeHead({ ...head, ...NEW_FIELD }), 0, HEAD_BYTES, 0);
    closeSync(fd);
  }
  await writeAsNextRelease(join(store!, 'index'), (key, value) => {
    const text = unsealed(key, value);
    return text === null ? value : sealed(key, withNewField(text));
  });
  await writeAsNextRelease(join(appliance.directory, 'state', 'state.level'));
}

test('a store that the next release has written is opened, with its bytes, and written for the next release to open', async () => {
  const film = put('/film', 1);
  await sendRequest(appliance.port, { path: '/film' });
  await appliance.until(() => files().length === 3);
  await appliance.killAll('SIGTERM');
  await writeAllAsNextRelease();

  await appliance.start();
  await expectStored({ '/film': film });
  const other = put('/other', 2);
  await sendRequest(appliance.port, { path: '/other' });
  await appliance.until(() => files().length === 6);
  await appliance.killAll('SIGKILL');
  expect(files().filter((path) => readFileSync(path).includes('laterField')).length).toBe(3);
  await writeAllAsNextRelease();

  await appliance.start();
  await expectStored({ '/film': film, '/other': other });
  expect(readdirSync(appliance.stores()[0]!)).toContain('larder-store.json');
});
