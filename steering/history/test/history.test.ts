// Explanations of the past against the decisions made then: random events in a small fleet, a scripted sequence over HTTP, and
// the faults for instants that were not recorded.

import * as fc from 'fast-check';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { Title } from '../../../protocol/catalog.ts';
import { explanation, type Explanation } from '../../../protocol/decision.ts';
import { isFault } from '../../../protocol/faults.ts';
import { LEASE_MS, type Heartbeat, type InventoryDelta } from '../../../protocol/heartbeat.ts';
import { MemoryCatalogStore } from '../../catalog.ts';
import { REMOVE_AFTER_MS } from '../../fleet.ts';
import { parseFootprint } from '../../footprint.ts';
import type { ProbeResult } from '../../health.ts';
import { HISTORY_AGE_MS, PERIOD_BREAK_MS, REOPEN_MS } from '../recorder.ts';
import { decide, type PlayDecision } from '../../decide.ts';
import { decidePlay } from '../../play.ts';
import { MAP_CHARS_MAX } from '../replay.ts';
import { MemoryRegistry } from '../../registry.ts';
import {
  aHeartbeat,
  aTitle,
  send,
  fallbackCount,
  manualClock,
  openTestSteering,
  metricValue,
  allHoldings,
  type TestSteering,
} from '../../test/harness.ts';
import { faultOf, openTwoSites, operator, type TwoSites } from '../../test/two-sites.ts';

const directories: string[] = [];
function newDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'history-'));
  directories.push(directory);
  return directory;
}
afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true });
});

const SESSION = 'a'.repeat(16);
const IDS = ['a', 'a.b', 'b', 'c'];
const TITLES = ['harbor', 'meadow', 'tunnel'];
const CLIENTS = ['10.1.0.7', '2001:db8::7', '192.0.2.1'];
const RUNS = ['00000000000000aa', '00000000000000bb'];
const MAPS = [
  { north: { network: ['10.1.0.0/16'], network6: ['2001:db8::/32'] }, south: { network: ['0.0.0.0/1'] } },
  {
    north: { network: ['10.0.0.0/8'], coordinates: { latitude: 59, longitude: 18 } },
    south: {
      network: ['10.1.0.0/24', '192.0.2.0/24'],
      network6: ['2000::/3'],
      backupZones: { list: ['north'], fallbackToClosestGroup: false },
    },
  },
  { south: { network: [], coordinates: { latitude: 40, longitude: -4 } } },
].map((zones) => JSON.stringify({ coverageZones: zones }));

interface HeartbeatEvent {
  readonly kind: 'heartbeat';
  readonly id: string;
  readonly fields: Partial<Heartbeat> & Pick<Heartbeat, 'incarnation'>;
  readonly holdings: Pick<InventoryDelta, 'added' | 'removed'> | null;
}
type Event =
  | HeartbeatEvent
  | { readonly kind: 'drain' | 'resume'; readonly id: string }
  | { readonly kind: 'probe'; readonly id: string; readonly result: ProbeResult }
  | { readonly kind: 'catalog'; readonly title: string; readonly bytes: number | null }
  /** The registry has the heartbeat sent just before the restart, but history has not. */
  | {
      readonly kind: 'restart';
      readonly kill: boolean;
      readonly map: number;
      readonly defaultSite: string;
      readonly justBefore: HeartbeatEvent | null;
    }
  | { readonly kind: 'pause'; readonly seconds: number }
  | { readonly kind: 'month' };

const someHoldings = fc.uniqueArray(fc.constantFrom(...TITLES.flatMap(allHoldings)), { maxLength: 9 });
const anId = fc.constantFrom(...IDS);
const aHeartbeatEvent: fc.Arbitrary<HeartbeatEvent> = fc.record({
  kind: fc.constant('heartbeat' as const),
  id: anId,
  fields: fc.record(
    {
      site: fc.constantFrom('north', 'south', 'west'),
      connections: fc.constantFrom(0, 1000),
      connectionsMax: fc.constantFrom(900, 10_000),
      position: fc.constantFrom(null, { lat: 50, lon: 8 }, { lat: 41, lon: 2 }),
      state: fc.constantFrom('serving' as const, 'starting' as const),
      incarnation: fc.constantFrom(...RUNS),
    },
    { requiredKeys: ['incarnation'] },
  ),
  holdings: fc.option(fc.record({ added: someHoldings, removed: someHoldings })),
});
const anEvent: fc.Arbitrary<Event> = fc.oneof(
  { weight: 18, arbitrary: aHeartbeatEvent },
  { weight: 3, arbitrary: fc.record({ kind: fc.constantFrom('drain' as const, 'resume' as const), id: anId }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('probe' as const),
      id: anId,
      result: fc.constantFrom<ProbeResult>('answered', 'refused', 'missed'),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('catalog' as const),
      title: fc.constantFrom(...TITLES),
      bytes: fc.option(fc.integer({ min: 1, max: 5 })),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('restart' as const),
      kill: fc.boolean(),
      map: fc.nat(MAPS.length - 1),
      defaultSite: fc.constantFrom('north', 'south'),
      justBefore: fc.option(aHeartbeatEvent),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('pause' as const), seconds: fc.integer({ min: 1, max: 12 }) }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: 'month' as const }) },
);

/** A steering service that restarts now and then on the same registry, catalog and history. */
class Lifetime {
  readonly #persistent = {
    registry: new MemoryRegistry(),
    catalogStore: new MemoryCatalogStore(),
    clock: manualClock(),
  };
  readonly #state = newDirectory();
  readonly #seq = new Map<string, number>();
  steering!: TestSteering;
  #revision = 0;
  /** Earlier instants may have been pruned. */
  recordedFrom = 0;

  async start(map = 0, defaultSite = 'north'): Promise<void> {
    const mapText = MAPS[map]!;
    const footprint = parseFootprint(mapText, 'map');
    this.steering = await openTestSteering({
      ...this.#persistent,
      state: this.#state,
      mapText,
      footprint,
      defaultSite,
    });
    await this.steering.tick();
  }

  async apply(event: Event): Promise<void> {
    const { steering } = this;
    const { fleet, clock } = steering;
    const inFleet = 'id' in event && fleet.inventories().has(event.id);
    if (event.kind === 'heartbeat') this.#heartbeat(event);
    else if (event.kind === 'probe') fleet.recordProbe(event.id, event.result);
    else if (event.kind === 'drain' && inFleet)
      await fleet.orderState(event.id, { state: 'draining', at: null, forMs: 5_000 });
    else if (event.kind === 'resume' && inFleet)
      await fleet.orderState(event.id, { state: 'serving', at: null, forMs: null });
    else if (event.kind === 'catalog') {
      const { title: id, bytes } = event;
      this.#revision += 1;
      const plain = aTitle({ id });
      const title: Title = {
        ...plain,
        renditions: plain.renditions.map((row, at) => ({ ...row, bytes: bytes! ** at })),
      };
      await steering.catalog.apply({
        revision: this.#revision,
        titles: bytes === null ? [] : [title],
        removed: bytes === null ? [id] : [],
      });
    } else if (event.kind === 'restart') {
      if (event.justBefore !== null) this.#heartbeat(event.justBefore);
      if (event.kill) await steering.kill();
      else {
        await steering.close();
        await steering.history.close();
      }
      await fleet.close();
      clock.advance(60_000);
      await this.start(event.map, event.defaultSite);
    }
    if (event.kind === 'month') {
      // Long enough that silent appliances are removed.
      clock.advance(REMOVE_AFTER_MS + LEASE_MS);
      this.recordedFrom = clock.now() - HISTORY_AGE_MS;
    }
    await this.steering.tick(event.kind === 'pause' ? event.seconds * 1_000 : 1_000);
  }

  #heartbeat({ id, fields, holdings }: HeartbeatEvent): void {
    const { fleet } = this.steering;
    const seq = (this.#seq.get(id) ?? 0) + 1;
    this.#seq.set(id, seq);
    const since = fleet.inventories().get(id)?.revisionFor(fields.incarnation) ?? 0;
    const inventory = holdings === null ? null : { since, revision: seq, ...holdings };
    fleet.renewLease({ ...aHeartbeat({ appliance: id }), ...fields, seq, inventory });
  }

  /** The decision of now, or the code of the fault. */
  decisionNow(title: string, address: string): PlayDecision | string {
    const { steering } = this;
    if (steering.catalog.find(title) === null) return 'not_found';
    const playRequest = { title, address, session: SESSION, pathwaysMax: 3 };
    return decidePlay({ ...steering, ...steering.settings }, playRequest, null);
  }

  /** The decision of a past instant, or the code of the fault. */
  async decisionAt(at: number, title: string, address: string): Promise<PlayDecision | string> {
    try {
      const { inputs } = await this.steering.history.inputsAt({ at, title, address });
      return decide(inputs, { title, address, session: SESSION, pathwaysMax: 3 });
    } catch (error) {
      if (!isFault(error)) throw error;
      return error.code;
    }
  }
}

describe('an explanation of the past', () => {
  it('is the decision made at that instant, whatever happened since', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anEvent, { minLength: 5, maxLength: 30 }), fc.boolean(), async (events, kill) => {
        const lifetime = new Lifetime();
        await lifetime.start();
        const seen: { at: number; title: string; address: string; playDecision: PlayDecision | string }[] = [];
        for (const event of events) {
          await lifetime.apply(event);
          const at = lifetime.steering.clock.now();
          for (const title of TITLES)
            for (const address of CLIENTS)
              seen.push({ at, title, address, playDecision: lifetime.decisionNow(title, address) });
        }
        await lifetime.apply({ kind: 'restart', kill, map: 0, defaultSite: 'north', justBefore: null });
        for (const { at, title, address, playDecision } of seen) {
          const repeated = await lifetime.decisionAt(at, title, address);
          if (repeated !== 'history_missing' || at >= lifetime.recordedFrom) expect(repeated).toEqual(playDecision);
        }
        await lifetime.steering.close();
        await lifetime.steering.history.close();
      }),
      { numRuns: 40 },
    );
  });
});

describe('GET /v1/explain with an instant', () => {
  let steering: TwoSites;
  afterEach(async () => {
    await steering.close();
    await steering.history.close();
  });
  const explain = (at: number | string): ReturnType<typeof send> => {
    const instant = encodeURIComponent(typeof at === 'string' ? at : new Date(at).toISOString());
    return send(`${steering.url}/v1/explain?client=127.1.0.1&title=harbor&at=${instant}`, { token: operator });
  };
  const explainedAt = async (at: number): Promise<Explanation> => explanation.parse((await explain(at)).json());
  /** Status, code and message of the fault. */
  const refused = async (at: number | string): Promise<readonly [number, string, string]> => {
    const answer = await explain(at);
    return [answer.status, faultOf(answer).code, faultOf(answer).message];
  };

  it('repeats what players received while an appliance was alive, drained and expired, until the title was removed', async () => {
    steering = await openTwoSites({ state: newDirectory() });
    const answers: { readonly at: number; readonly play: Awaited<ReturnType<TwoSites['play']>> }[] = [];
    const play = async (): Promise<void> => {
      await steering.tick();
      answers.push({ at: steering.clock.now(), play: await steering.play() });
    };
    await play();
    const inventory = { since: 0, revision: 1, added: allHoldings('harbor').slice(0, 3), removed: [] };
    await steering.heartbeat({ appliance: 'n1', seq: 1, inventory });
    await play();
    await steering.heartbeat({ appliance: 's1', site: 'south', seq: 1 });
    await play();
    await steering.fleet.orderState('n1', { state: 'draining', at: null, forMs: 5_000 });
    await play();
    for (let passed = 0; passed < 14; passed += 1) await play();
    await steering.catalog.apply({ revision: 2, titles: [], removed: ['harbor'] });
    await steering.tick();

    for (const { at, play } of answers) {
      const then = await explainedAt(at);
      const bare = (pathways: typeof play.pathways): unknown[] => pathways.map((row) => ({ ...row, base: '' }));
      expect([then.at, then.client, bare(then.pathways)]).toEqual([play.at, play.client, bare(play.pathways)]);
      expect(then.catalogRevision).toBe(1);
    }
    const considered = await Promise.all(answers.map(async ({ at }) => (await explainedAt(at)).considered));
    const reasonsOf = (id: string): (string | undefined)[] =>
      considered
        .map((rows) => rows.find(({ appliance }) => appliance === id)?.reason)
        .filter((reason, at, all) => at === 0 || reason !== all[at - 1]);
    expect(reasonsOf('n1')).toEqual([
      undefined,
      'its site serves 127.1.0.0/16; holds 75 %',
      'the operator drained it',
      'its site serves 127.1.0.0/16; holds 75 %',
      ...Array.from({ length: 8 }, (_, at) => `its lease ended ${at === 0 ? '0 ms' : `${at} s`} ago`),
    ]);
    expect(await refused(steering.clock.now())).toEqual([
      404,
      'not_found',
      'no title "harbor" was in the catalog at 2026-03-01T12:00:19.000Z (revision 2)',
    ]);
  });

  it('is refused before recorded history, between two runs, in the future, and without a valid instant', async () => {
    const options = { state: newDirectory(), clock: manualClock() };
    steering = await openTwoSites(options);
    expect((await refused(options.clock.now()))[2]).toBe('the history cannot be read: it is being opened');
    await steering.tick();
    const begin = options.clock.now();
    await steering.tick();
    await steering.kill();
    options.clock.advance(60_000);
    steering = await openTwoSites(options);
    await steering.tick();
    expect(await refused(begin - 1)).toEqual([
      404,
      'history_missing',
      'there is no history for 2026-03-01T12:00:00.999Z: history begins at 2026-03-01T12:00:01.000Z',
    ]);
    expect(await refused(begin + 30_000)).toEqual([
      404,
      'history_missing',
      'there is no history for 2026-03-01T12:00:31.000Z: steering did not run: it was last seen at 2026-03-01T12:00:02.000Z and started at 2026-03-01T12:01:03.000Z',
    ]);
    expect((await explainedAt(begin)).pathways.map(({ id }) => id)).toEqual(['origin']);
    // The machine was suspended.
    const asleep = options.clock.now();
    await steering.tick(PERIOD_BREAK_MS + 1_000);
    expect((await refused(asleep + 5_000))[2]).toContain('history was not written from 2026-03-01T12:01:03.000Z to');
    // The client's clock may be a little ahead of steering's.
    expect((await explain(options.clock.now() + 59_000)).status).toBe(200);
    const [status, code, message] = await refused(options.clock.now() + 61_000);
    expect([status, code]).toEqual([400, 'request_malformed']);
    expect(message).toMatch(/^query\.at is 2026-03-01T12:02:35\.000Z, which lies ahead \(here it is .*\); ask for/);
    expect(await refused('yesterday')).toEqual([
      400,
      'request_malformed',
      'query.at is "yesterday": must be an instant such as 2026-03-01T02:00:00Z; write + as %2B',
    ]);
  });

  it('keeps no row of an appliance a week after its removal', async () => {
    steering = await openTwoSites({ state: newDirectory() });
    await steering.tick();
    const rows = (): Promise<number> => metricValue(steering.metrics, 'larder_steering_history_rows');
    const before = await rows();
    const inventory = { since: 0, revision: 1, added: allHoldings('harbor'), removed: [] };
    await steering.heartbeat({ appliance: 'n1', inventory });
    await steering.tick();
    expect(await rows()).toBe(before + 2);
    await steering.tick(REMOVE_AFTER_MS + LEASE_MS);
    await steering.tick();
    await steering.tick(HISTORY_AGE_MS + 1_000);
    expect(await rows()).toBe(before);
  });

  it('reaches back a week, or less with too many rows, and names the first instant', async () => {
    steering = await openTwoSites({ state: newDirectory(), historyLimits: { rowsMax: 80 } });
    let seq = 0;
    const flip = async (ms?: number): Promise<number> => {
      seq += 1;
      await steering.heartbeat({ appliance: 'n1', seq, state: seq % 2 === 0 ? 'serving' : 'starting' });
      await steering.tick(ms);
      return steering.clock.now();
    };
    const historyBeginFor = async (at: number): Promise<number> =>
      Date.parse(/: history begins at (\S+)$/.exec((await refused(at))[2])![1]!);
    const first = await flip();
    const stepMs = 6 * 3_600_000;
    while (steering.clock.now() < first + HISTORY_AGE_MS + stepMs) {
      await flip(stepMs);
      await flip();
    }
    const week = await historyBeginFor(first);
    expect(Math.abs(steering.clock.now() - HISTORY_AGE_MS - week)).toBeLessThanOrEqual(stepMs);
    expect((await explainedAt(week)).considered).toHaveLength(1);
    for (let more = 0; more < 60; more += 1) await flip();
    const less = await historyBeginFor(week);
    expect(steering.clock.now() - less).toBeGreaterThan(30_000);
    expect((await explainedAt(less)).considered).toHaveLength(1);
    expect(await metricValue(steering.metrics, 'larder_steering_history_rows')).toBeLessThanOrEqual(80);
  });
});

describe('a map too long to be recorded', () => {
  it('allows explanations while it is in force, and is the reason of the fault afterwards', async () => {
    const options = { state: newDirectory(), clock: manualClock() };
    const inputsOf = (steering: TwoSites): Promise<unknown> =>
      steering.history.inputsAt({ at: Date.parse('2026-03-01T12:00:02Z'), title: 'harbor', address: '127.1.0.1' });
    for (const mapText of ['x'.repeat(MAP_CHARS_MAX + 1), '{"coverageZones":{}}']) {
      const steering = await openTwoSites({ ...options, mapText });
      await steering.tick();
      await steering.tick();
      if (mapText.length > MAP_CHARS_MAX) await inputsOf(steering);
      else
        await expect(inputsOf(steering)).rejects.toMatchObject({
          code: 'history_missing',
          message: expect.stringContaining('was not kept; only the map in force') as string,
        });
      await steering.close();
      await steering.history.close();
    }
  });
});

describe('changes beyond the limit of one commit', () => {
  it('are written in the next ones, even after a kill, and history begins once all are written', async () => {
    const options = {
      state: newDirectory(),
      historyLimits: { changesMax: 2 },
      registry: new MemoryRegistry(),
      clock: manualClock(),
      titles: TITLES.map((id) => aTitle({ id })),
    };
    let steering = await openTwoSites(options);
    const added = TITLES.flatMap(allHoldings);
    steering.fleet.renewLease(
      aHeartbeat({ appliance: 'n1', inventory: { since: 0, revision: 1, added, removed: [] } }),
    );
    // One appliance, the settings, three titles, the revision of the catalog and three holdings.
    for (let written = 0; written < 4; written += 1) await steering.tick();
    const early = steering.clock.now();
    await steering.fleet.close();
    await steering.kill();
    steering = await openTwoSites(options);
    for (let written = 0; written < 2; written += 1) await steering.tick();
    const heldAt = async (at: number): Promise<unknown> =>
      Promise.all(
        TITLES.map(async (title) => {
          const { inputs } = await steering.history.inputsAt({ at, title, address: '127.1.0.1' });
          return inputs.candidates[0]?.held;
        }),
      );
    expect(await heldAt(steering.clock.now())).toEqual([1, 1, 1]);
    await expect(heldAt(early)).rejects.toMatchObject({ code: 'history_missing' });
    await steering.close();
    await steering.history.close();
  });
});

describe('history_down_unrecorded', () => {
  it('affects no play, is counted, is reported as a gap, and ends when the disk is back', async () => {
    const state = newDirectory();
    // A file blocks the path of the directory.
    writeFileSync(join(state, 'history'), '');
    const steering = await openTwoSites({ state });
    await steering.heartbeat({ appliance: 'n1' });
    await steering.tick();
    expect((await steering.play()).pathways.map(({ id }) => id)).toEqual(['n1', 'origin']);
    expect(await fallbackCount(steering.metrics, 'history_down_unrecorded')).toBe(1);
    const unrecorded = steering.clock.now();
    await expect(
      steering.history.inputsAt({ at: unrecorded, title: 'harbor', address: '127.1.0.1' }),
    ).rejects.toMatchObject({
      code: 'disk_failed',
    });
    rmSync(join(state, 'history'));
    await steering.tick(REOPEN_MS);
    const inputsAt = (at: number): ReturnType<TwoSites['history']['inputsAt']> =>
      steering.history.inputsAt({ at, title: 'harbor', address: '127.1.0.1' });
    expect((await inputsAt(steering.clock.now())).inputs.candidates).toHaveLength(1);

    // The level is closed underneath, so that every write fails until it is reopened.
    const before = steering.clock.now();
    await steering.kill();
    await steering.tick();
    expect(await fallbackCount(steering.metrics, 'history_down_unrecorded')).toBe(2);
    await steering.tick(REOPEN_MS);
    await expect(inputsAt(before + 1_000)).rejects.toMatchObject({
      code: 'history_missing',
      message: expect.stringContaining('history was not written from') as string,
    });
    expect((await inputsAt(before)).inputs.candidates).toHaveLength(1);
    await steering.history.close();
  });

  it('pauses while the clock is set back, so that what was recorded of an instant never changes', async () => {
    const clock = manualClock();
    const steering = await openTwoSites({ state: newDirectory(), clock });
    const heldAt = async (at: number): Promise<unknown> =>
      (await steering.history.inputsAt({ at, title: 'harbor', address: '127.1.0.1' })).inputs.candidates.length;
    await steering.tick();
    const at = clock.now();
    clock.setNow(at - 600_000);
    await steering.heartbeat({ appliance: 'n1' });
    await steering.tick();
    expect(await fallbackCount(steering.metrics, 'history_down_unrecorded')).toBe(1);
    await steering.tick(600_000);
    expect(await heldAt(at)).toBe(0);
    expect(await heldAt(clock.now())).toBe(1);
    await steering.close();
    await steering.history.close();
  });
});
