// While steering is down, plans are made from the view of the fleet that is on disk.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { issueToken } from '../../runtime/auth.ts';
import { silentLog } from '../../runtime/log.ts';
import { createMetrics } from '../../runtime/metrics.ts';
import { METRICS } from '../metrics.ts';
import { openDatabase } from '../database.ts';
import { SteeringClient } from '../steering-client.ts';
import { WRITE_ERROR } from './failing-writes.ts';
import { FleetDouble } from './fleet-double.ts';

test('a view of the fleet that cannot be written is not used later', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'larder-steering-client-'));
  const database = await openDatabase(directory);
  const key = Buffer.alloc(32);
  const steering = new FleetDouble(key);
  const url = await steering.start();
  const token = issueToken(key, { role: 'service', id: 'fill' });
  const open = (): Promise<SteeringClient> =>
    SteeringClient.open({ url, token, database, log: silentLog, metrics: createMetrics(METRICS) });
  const client = await open();
  steering.add('north-1');
  const seen = await client.fleet();
  steering.add('north-2');
  vi.spyOn(database, 'put').mockRejectedValueOnce(new Error(WRITE_ERROR));
  await expect(client.fleet()).rejects.toThrow(WRITE_ERROR);
  await steering.stop();
  expect(await client.fleet()).toEqual(seen);
  expect(await (await open()).fleet()).toEqual(seen);
  await database.close();
  rmSync(directory, { recursive: true });
});
