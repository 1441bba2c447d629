// One of two disks hangs: what lies on the other is read as if nothing had happened. A named pipe in place of a block file hangs whoever
// opens it, for as long as nobody writes to it.

import { execFileSync } from 'node:child_process';
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { HttpConnection, requestText, sendRequest } from '../../test/http-client.ts';
import { noise, RunningAppliance, ScriptedOrigin } from '../../test/rig.ts';

const FILMS = 80;
const BYTES = 100_000;
/** Three times the threads of a worker and of the storekeeper together. */
const READERS = 200;

let appliance: RunningAppliance;
let origin: ScriptedOrigin;

afterEach(async () => {
  await appliance.stop();
  await origin.stop();
});

const blockFiles = (store: string): string[] =>
  readdirSync(join(store, 'blocks'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.includes('.'))
    .map((name) => join(store, 'blocks', name));

test('with one of two disks hanging, assets on the other are served', { timeout: 120_000 }, async () => {
  origin = await ScriptedOrigin.start();
  const headers = { 'cache-control': 'max-age=3600' };
  const films = Array.from({ length: FILMS }, (_, at) => origin.put(`/film-${at}`, noise(BYTES, at + 1), { headers }));
  const flags = ['--workers', '1', '--memory-bytes', '0', '--store-bytes', '128MiB'];
  appliance = await RunningAppliance.start({ origin: origin.url, flags, stores: 2 });
  const get = async (at: number): Promise<Buffer> => (await sendRequest(appliance.port, { path: `/film-${at}` })).body;
  for (const [at, film] of films.entries()) expect((await get(at)).equals(film)).toBe(true);
  const [hanging, healthy] = appliance.stores() as [string, string];
  await appliance.until(() => blockFiles(hanging).length + blockFiles(healthy).length === FILMS);
  // A restart closes what is open.
  await appliance.killAll('SIGTERM');
  await appliance.start();
  for (const path of blockFiles(hanging)) {
    rmSync(path);
    execFileSync('mkfifo', [path]);
  }
  const answered = new Set<number>();
  const readers = await Promise.all(
    Array.from({ length: READERS }, async (_, reader) => {
      const connection = await HttpConnection.open(appliance.port, 100_000);
      connection.send(requestText({ path: `/film-${reader % FILMS}` }));
      void connection.readResponse().then(
        (answer) => answer?.body.equals(films[reader % FILMS]!) === true && answered.add(reader % FILMS),
        () => undefined,
      );
      return connection;
    }),
  );
  await appliance.until(() => answered.size === blockFiles(healthy).length);
  for (const reader of readers) reader.destroy();
});
