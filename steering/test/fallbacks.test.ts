// The fallbacks of steering that a play can take, seen from a player: the dependency is taken away, the play goes on.

import { afterEach, describe, expect, it } from 'vitest';
import type { PlayAnswer } from '../../protocol/decision.ts';
import { parseFootprint } from '../footprint.ts';
import { aBeat, ask, aTitle, fallbackCount, openStage, type Stage } from './stage.ts';

const footprint = parseFootprint(
  '{"coverageZones":{"north":{"network":["127.1.0.0/16"]},"south":{"network":["127.2.0.0/16"]}}}',
  'map.json',
);

let stage: Stage;
afterEach(() => stage.close());

const pathwaysOf = async (query = ''): Promise<string[]> =>
  (await ask(`${stage.url}/v1/play/harbor${query}`, { from: '127.1.0.1' }))
    .json<PlayAnswer>()
    .pathways.map(({ id }) => id);

describe('site_down_next_site', () => {
  it('sends the viewers of a dead site to the next one, and counts it', async () => {
    stage = await openStage({ titles: [aTitle({ id: 'harbor' })], footprint });
    stage.fleet.beat(aBeat({ appliance: 'n1', site: 'north' }));
    stage.fleet.beat(aBeat({ appliance: 's1', site: 'south' }));
    expect(await pathwaysOf()).toEqual(['n1', 's1', 'origin']);
    expect(await fallbackCount(stage.metrics, 'site_down_next_site')).toBe(0);
    stage.fleet.probed('n1', 'refused');
    expect(await pathwaysOf()).toEqual(['s1', 'origin']);
    expect(await fallbackCount(stage.metrics, 'site_down_next_site')).toBe(1);
  });
});

describe('appliances_down_origin', () => {
  it('sends everybody to the origin when no appliance is left, and counts it', async () => {
    stage = await openStage({ titles: [aTitle({ id: 'harbor' })], footprint });
    stage.fleet.beat(aBeat({ appliance: 'n1', site: 'north' }));
    expect(await pathwaysOf()).toEqual(['n1', 'origin']);
    expect(await fallbackCount(stage.metrics, 'appliances_down_origin')).toBe(0);
    stage.clock.advance(11_000);
    expect(await pathwaysOf()).toEqual(['origin']);
    expect(await fallbackCount(stage.metrics, 'appliances_down_origin')).toBe(1);
    const playlist = await ask(`${stage.url}/v1/titles/harbor/master.m3u8`, { from: '127.1.0.1' });
    expect(playlist.body).toContain('\nhttp://origin.example/media/harbor/video/144p/index.m3u8\n');
  });
});
