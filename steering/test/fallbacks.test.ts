// The fallbacks that a play can take, as a player sees them: appliances become unavailable and the play continues.

import { afterEach, describe, expect, it } from 'vitest';
import type { PlayAnswer } from '../../protocol/decision.ts';
import { parseFootprint } from '../footprint.ts';
import { aHeartbeat, send, aTitle, fallbackCount, openTestSteering, type TestSteering } from './harness.ts';

const footprint = parseFootprint(
  '{"coverageZones":{"north":{"network":["127.1.0.0/16"]},"south":{"network":["127.2.0.0/16"]}}}',
  'map.json',
);

let steering: TestSteering;
afterEach(() => steering.close());

const pathwaysOf = async (query = ''): Promise<string[]> =>
  (await send(`${steering.url}/v1/play/harbor${query}`, { from: '127.1.0.1' }))
    .json<PlayAnswer>()
    .pathways.map(({ id }) => id);

describe('site_down_next_site', () => {
  it('sends the viewers of a failed site to the next one, and is counted', async () => {
    steering = await openTestSteering({ titles: [aTitle({ id: 'harbor' })], footprint });
    steering.fleet.renewLease(aHeartbeat({ appliance: 'n1', site: 'north' }));
    steering.fleet.renewLease(aHeartbeat({ appliance: 's1', site: 'south' }));
    expect(await pathwaysOf()).toEqual(['n1', 's1', 'origin']);
    expect(await fallbackCount(steering.metrics, 'site_down_next_site')).toBe(0);
    steering.fleet.recordProbe('n1', 'refused');
    expect(await pathwaysOf()).toEqual(['s1', 'origin']);
    expect(await fallbackCount(steering.metrics, 'site_down_next_site')).toBe(1);
  });
});

describe('appliances_down_origin', () => {
  it('sends every play to the origin when no appliance is left, and is counted', async () => {
    steering = await openTestSteering({ titles: [aTitle({ id: 'harbor' })], footprint });
    steering.fleet.renewLease(aHeartbeat({ appliance: 'n1', site: 'north' }));
    expect(await pathwaysOf()).toEqual(['n1', 'origin']);
    expect(await fallbackCount(steering.metrics, 'appliances_down_origin')).toBe(0);
    steering.clock.advance(11_000);
    expect(await pathwaysOf()).toEqual(['origin']);
    expect(await fallbackCount(steering.metrics, 'appliances_down_origin')).toBe(1);
    const playlist = await send(`${steering.url}/v1/titles/harbor/master.m3u8`, { from: '127.1.0.1' });
    expect(playlist.body).toContain('\nhttp://origin.example/media/harbor/video/144p/index.m3u8\n');
  });
});
