// Explanations of the past against what was decided then: random lives of a small fleet, a day told at the socket, and
// what is said of times that nobody can tell of.

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
import { FORGET_MS } from '../../fleet.ts';
import { parseFootprint } from '../../footprint.ts';
import type { ProbeResult } from '../../health.ts';
import { HISTORY_AGE_MS, REOPEN_MS, SPAN_BREAK_MS } from '../recorder.ts';
import { decideIn, decidePlay, type Decided } from '../../play.ts';
import { MAP_CHARS_MAX } from '../replay.ts';
import { MemoryRegistry } from '../../registry.ts';
import {
  aBeat,
  aTitle,
  ask,
  fallbackCount,
  handClock,
  openStage,
  sample,
  wholeTitle,
  type Stage,
} from '../../test/stage.ts';
import { faultOf, openTown, operator, type Town } from '../../test/town.ts';

const directories: string[] = [];
function aDirectory(): string {
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

interface Beat {
  readonly kind: 'beat';
  readonly id: string;
  readonly given: Partial<Heartbeat> & Pick<Heartbeat, 'incarnation'>;
  readonly holdings: Pick<InventoryDelta, 'added' | 'removed'> | null;
}
type Event =
  | Beat
  | { readonly kind: 'drain' | 'resume'; readonly id: string }
  | { readonly kind: 'probe'; readonly id: string; readonly result: ProbeResult }
  | { readonly kind: 'catalog'; readonly title: string; readonly bytes: number | null }
  /** A beat just before is in the registry, and not in history yet. */
  | {
      readonly kind: 'restart';
      readonly kill: boolean;
      readonly map: number;
      readonly defaultSite: string;
      readonly justBefore: Beat | null;
    }
  | { readonly kind: 'nothing'; readonly seconds: number }
  | { readonly kind: 'month' };

const someHoldings = fc.uniqueArray(fc.constantFrom(...TITLES.flatMap(wholeTitle)), { maxLength: 9 });
const anId = fc.constantFrom(...IDS);
const aBeatEvent: fc.Arbitrary<Beat> = fc.record({
  kind: fc.constant('beat' as const),
  id: anId,
  given: fc.record(
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
  { weight: 18, arbitrary: aBeatEvent },
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
      justBefore: fc.option(aBeatEvent),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('nothing' as const), seconds: fc.integer({ min: 1, max: 12 }) }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: 'month' as const }) },
);

/** A steering that is started again now and then, with all that it would find on its disk. */
class Life {
  readonly #kept = { registry: new MemoryRegistry(), catalogStore: new MemoryCatalogStore(), clock: handClock() };
  readonly #state = aDirectory();
  readonly #seq = new Map<string, number>();
  stage!: Stage;
  #revision = 0;
  /** Instants before it may have been pruned. */
  keptFrom = 0;

  async start(map = 0, defaultSite = 'north'): Promise<void> {
    const mapText = MAPS[map]!;
    const footprint = parseFootprint(mapText, 'map');
    this.stage = await openStage({ ...this.#kept, state: this.#state, mapText, footprint, defaultSite });
    await this.stage.second();
  }

  async happen(event: Event): Promise<void> {
    const { stage } = this;
    const { fleet, clock } = stage;
    const isKnown = 'id' in event && fleet.inventories().has(event.id);
    if (event.kind === 'beat') this.#beat(event);
    else if (event.kind === 'probe') fleet.probed(event.id, event.result);
    else if (event.kind === 'drain' && isKnown)
      await fleet.orderState(event.id, { state: 'draining', at: null, forMs: 5_000 });
    else if (event.kind === 'resume' && isKnown)
      await fleet.orderState(event.id, { state: 'serving', at: null, forMs: null });
    else if (event.kind === 'catalog') {
      const { title: id, bytes } = event;
      this.#revision += 1;
      const plain = aTitle({ id });
      const title: Title = {
        ...plain,
        renditions: plain.renditions.map((row, at) => ({ ...row, bytes: bytes! ** at })),
      };
      await stage.catalog.apply({
        revision: this.#revision,
        titles: bytes === null ? [] : [title],
        removed: bytes === null ? [id] : [],
      });
    } else if (event.kind === 'restart') {
      if (event.justBefore !== null) this.#beat(event.justBefore);
      if (event.kill) await stage.kill();
      else {
        await stage.close();
        await stage.history.close();
      }
      await fleet.close();
      clock.advance(60_000);
      await this.start(event.map, event.defaultSite);
    }
    if (event.kind === 'month') {
      // So long that steering forgets who was silent.
      clock.advance(FORGET_MS + LEASE_MS);
      this.keptFrom = clock.now() - HISTORY_AGE_MS;
    }
    await this.stage.second(event.kind === 'nothing' ? event.seconds * 1_000 : 1_000);
  }

  #beat({ id, given, holdings }: Beat): void {
    const { fleet } = this.stage;
    const seq = (this.#seq.get(id) ?? 0) + 1;
    this.#seq.set(id, seq);
    const since = fleet.inventories().get(id)?.revisionFor(given.incarnation) ?? 0;
    const inventory = holdings === null ? null : { since, revision: seq, ...holdings };
    fleet.beat({ ...aBeat({ appliance: id }), ...given, seq, inventory });
  }

  now(title: string, address: string): Decided | string {
    const { stage } = this;
    const found = stage.catalog.find(title);
    if (found === null) return 'not_found';
    return decidePlay(
      { ...stage, ...stage.ground },
      { title: found, address, session: SESSION, pathways: 3, countAs: null },
    );
  }

  async told(at: number, title: string, address: string): Promise<Decided | string> {
    try {
      const { scene } = await this.stage.history.past({ at, title, address });
      const { decision, considered } = decideIn(scene, { title, address, session: SESSION, pathways: 3 });
      return { decision, considered };
    } catch (error) {
      if (!isFault(error)) throw error;
      return error.code;
    }
  }
}

describe('an explanation of the past', () => {
  it('is the decision of then, whatever happened since', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anEvent, { minLength: 5, maxLength: 30 }), fc.boolean(), async (events, kill) => {
        const life = new Life();
        await life.start();
        const seen: { at: number; title: string; address: string; decided: Decided | string }[] = [];
        for (const event of events) {
          await life.happen(event);
          const at = life.stage.clock.now();
          for (const title of TITLES)
            for (const address of CLIENTS) seen.push({ at, title, address, decided: life.now(title, address) });
        }
        await life.happen({ kind: 'restart', kill, map: 0, defaultSite: 'north', justBefore: null });
        for (const { at, title, address, decided } of seen) {
          const told = await life.told(at, title, address);
          if (told !== 'history_missing' || at >= life.keptFrom) expect(told).toEqual(decided);
        }
        await life.stage.close();
        await life.stage.history.close();
      }),
      { numRuns: 40 },
    );
  });
});

describe('at the socket', () => {
  let town: Town;
  afterEach(async () => {
    await town.close();
    await town.history.close();
  });
  const explain = (at: number | string): ReturnType<typeof ask> => {
    const instant = encodeURIComponent(typeof at === 'string' ? at : new Date(at).toISOString());
    return ask(`${town.url}/v1/explain?client=127.1.0.1&title=harbor&at=${instant}`, { token: operator });
  };
  const told = async (at: number): Promise<Explanation> => explanation.parse((await explain(at)).json());
  /** What was said where nothing could be told. */
  const refused = async (at: number | string): Promise<readonly [number, string, string]> => {
    const answer = await explain(at);
    return [answer.status, faultOf(answer).code, faultOf(answer).message];
  };

  it('a day is told as players had it: alive, drained, expired, gone from the catalog', async () => {
    town = await openTown({ state: aDirectory() });
    const answers: { readonly at: number; readonly play: Awaited<ReturnType<Town['play']>> }[] = [];
    const look = async (): Promise<void> => {
      await town.second();
      answers.push({ at: town.clock.now(), play: await town.play() });
    };
    await look();
    const inventory = { since: 0, revision: 1, added: wholeTitle('harbor').slice(0, 3), removed: [] };
    await town.beat({ appliance: 'n1', seq: 1, inventory });
    await look();
    await town.beat({ appliance: 's1', site: 'south', seq: 1 });
    await look();
    await town.fleet.orderState('n1', { state: 'draining', at: null, forMs: 5_000 });
    await look();
    for (let passed = 0; passed < 14; passed += 1) await look();
    await town.catalog.apply({ revision: 2, titles: [], removed: ['harbor'] });
    await town.second();

    for (const { at, play } of answers) {
      const then = await told(at);
      const bare = (pathways: typeof play.pathways): unknown[] => pathways.map((row) => ({ ...row, base: '' }));
      expect([then.at, then.client, bare(then.pathways)]).toEqual([play.at, play.client, bare(play.pathways)]);
      expect(then.catalogRevision).toBe(1);
    }
    const stories = await Promise.all(answers.map(async ({ at }) => (await told(at)).considered));
    const reasonsOf = (id: string): (string | undefined)[] =>
      stories
        .map((rows) => rows.find(({ appliance }) => appliance === id)?.reason)
        .filter((reason, at, all) => at === 0 || reason !== all[at - 1]);
    expect(reasonsOf('n1')).toEqual([
      undefined,
      'its site serves 127.1.0.0/16; holds 75 %',
      'the operator drained it',
      'its site serves 127.1.0.0/16; holds 75 %',
      ...Array.from({ length: 8 }, (_, at) => `its lease ended ${at === 0 ? '0 ms' : `${at} s`} ago`),
    ]);
    expect(await refused(town.clock.now())).toEqual([
      404,
      'not_found',
      'no title "harbor" was in the catalog at 2026-03-01T12:00:19.000Z (revision 2)',
    ]);
  });

  it('says why nothing can be told: before the first row, between two runs, ahead, or no instant', async () => {
    const given = { state: aDirectory(), clock: handClock() };
    town = await openTown(given);
    expect((await refused(given.clock.now()))[2]).toBe('the history cannot be read: it is being opened');
    await town.second();
    const begin = given.clock.now();
    await town.second();
    await town.kill();
    given.clock.advance(60_000);
    town = await openTown(given);
    await town.second();
    expect(await refused(begin - 1)).toEqual([
      404,
      'history_missing',
      'nothing can be told of 2026-03-01T12:00:00.999Z: history begins at 2026-03-01T12:00:01.000Z',
    ]);
    expect(await refused(begin + 30_000)).toEqual([
      404,
      'history_missing',
      'nothing can be told of 2026-03-01T12:00:31.000Z: steering did not run: it was last seen at 2026-03-01T12:00:02.000Z and started at 2026-03-01T12:01:03.000Z',
    ]);
    expect((await told(begin)).pathways.map(({ id }) => id)).toEqual(['origin']);
    // A machine that was put to sleep.
    const asleep = given.clock.now();
    await town.second(SPAN_BREAK_MS + 1_000);
    expect((await refused(asleep + 5_000))[2]).toContain('history was not written from 2026-03-01T12:01:03.000Z to');
    // A clock a little ahead of this one is no mistake.
    expect((await explain(given.clock.now() + 59_000)).status).toBe(200);
    const [status, code, message] = await refused(given.clock.now() + 61_000);
    expect([status, code]).toEqual([400, 'request_malformed']);
    expect(message).toMatch(/^query\.at is 2026-03-01T12:02:35\.000Z, which lies ahead \(here it is .*\); ask for/);
    expect(await refused('yesterday')).toEqual([
      400,
      'request_malformed',
      'query.at is "yesterday": must be an instant such as 2026-03-01T02:00:00Z; write + as %2B',
    ]);
  });

  it('keeps nothing of an appliance that was forgotten, a week after', async () => {
    town = await openTown({ state: aDirectory() });
    await town.second();
    const rows = (): Promise<number> => sample(town.metrics, 'larder_steering_history_rows');
    const before = await rows();
    const inventory = { since: 0, revision: 1, added: wholeTitle('harbor'), removed: [] };
    await town.beat({ appliance: 'n1', inventory });
    await town.second();
    expect(await rows()).toBe(before + 2);
    await town.second(FORGET_MS + LEASE_MS);
    await town.second();
    await town.second(HISTORY_AGE_MS + 1_000);
    expect(await rows()).toBe(before);
  });

  it('reaches back a week, and less where there are too many rows, and says so', async () => {
    town = await openTown({ state: aDirectory(), historyLimits: { rowsMax: 80 } });
    let seq = 0;
    const flip = async (ms?: number): Promise<number> => {
      seq += 1;
      await town.beat({ appliance: 'n1', seq, state: seq % 2 === 0 ? 'serving' : 'starting' });
      await town.second(ms);
      return town.clock.now();
    };
    const beginToldTo = async (at: number): Promise<number> =>
      Date.parse(/: history begins at (\S+)$/.exec((await refused(at))[2])![1]!);
    const first = await flip();
    const stepMs = 6 * 3_600_000;
    while (town.clock.now() < first + HISTORY_AGE_MS + stepMs) {
      await flip(stepMs);
      await flip();
    }
    const week = await beginToldTo(first);
    expect(Math.abs(town.clock.now() - HISTORY_AGE_MS - week)).toBeLessThanOrEqual(stepMs);
    expect((await told(week)).considered).toHaveLength(1);
    for (let more = 0; more < 60; more += 1) await flip();
    const less = await beginToldTo(week);
    expect(town.clock.now() - less).toBeGreaterThan(30_000);
    expect((await told(less)).considered).toHaveLength(1);
    expect(await sample(town.metrics, 'larder_steering_history_rows')).toBeLessThanOrEqual(80);
  });
});

describe('a map too long to be kept', () => {
  it('explains while it is in force, and is named afterwards', async () => {
    const given = { state: aDirectory(), clock: handClock() };
    const past = (town: Town): Promise<unknown> =>
      town.history.past({ at: Date.parse('2026-03-01T12:00:02Z'), title: 'harbor', address: '127.1.0.1' });
    for (const mapText of ['x'.repeat(MAP_CHARS_MAX + 1), '{"coverageZones":{}}']) {
      const town = await openTown({ ...given, mapText });
      await town.second();
      await town.second();
      if (mapText.length > MAP_CHARS_MAX) await past(town);
      else
        await expect(past(town)).rejects.toMatchObject({
          code: 'history_missing',
          message: expect.stringContaining('was not kept; only the map in force') as string,
        });
      await town.close();
      await town.history.close();
    }
  });
});

describe('what is too much for one second', () => {
  it('is written in the next ones, goes on after a kill, and is told of from when it was whole', async () => {
    const given = {
      state: aDirectory(),
      historyLimits: { changesMax: 2 },
      registry: new MemoryRegistry(),
      clock: handClock(),
      titles: TITLES.map((id) => aTitle({ id })),
    };
    let town = await openTown(given);
    const added = TITLES.flatMap(wholeTitle);
    town.fleet.beat(aBeat({ appliance: 'n1', inventory: { since: 0, revision: 1, added, removed: [] } }));
    // One appliance, ground and map, three titles, the catalog's revision, three holdings.
    for (let written = 0; written < 4; written += 1) await town.second();
    const early = town.clock.now();
    await town.fleet.close();
    await town.kill();
    town = await openTown(given);
    for (let written = 0; written < 2; written += 1) await town.second();
    const heldAt = async (at: number): Promise<unknown> =>
      Promise.all(
        TITLES.map(async (title) => {
          const { scene } = await town.history.past({ at, title, address: '127.1.0.1' });
          return scene.contenders[0]?.held;
        }),
      );
    expect(await heldAt(town.clock.now())).toEqual([1, 1, 1]);
    await expect(heldAt(early)).rejects.toMatchObject({ code: 'history_missing' });
    await town.close();
    await town.history.close();
  });
});

describe('history_down_unrecorded', () => {
  it('costs no play, is counted, told as a gap, and mended when the disk is back', async () => {
    const state = aDirectory();
    // A file where the directory should be.
    writeFileSync(join(state, 'history'), '');
    const town = await openTown({ state });
    await town.beat({ appliance: 'n1' });
    await town.second();
    expect((await town.play()).pathways.map(({ id }) => id)).toEqual(['n1', 'origin']);
    expect(await fallbackCount(town.metrics, 'history_down_unrecorded')).toBe(1);
    const lost = town.clock.now();
    await expect(town.history.past({ at: lost, title: 'harbor', address: '127.1.0.1' })).rejects.toMatchObject({
      code: 'disk_failed',
    });
    rmSync(join(state, 'history'));
    await town.second(REOPEN_MS);
    const past = (at: number): ReturnType<Town['history']['past']> =>
      town.history.past({ at, title: 'harbor', address: '127.1.0.1' });
    expect((await past(town.clock.now())).scene.contenders).toHaveLength(1);

    // The disk goes away under it: the level is closed, and every write fails until it is opened again.
    const before = town.clock.now();
    await town.kill();
    await town.second();
    expect(await fallbackCount(town.metrics, 'history_down_unrecorded')).toBe(2);
    await town.second(REOPEN_MS);
    await expect(past(before + 1_000)).rejects.toMatchObject({
      code: 'history_missing',
      message: expect.stringContaining('history was not written from') as string,
    });
    expect((await past(before)).scene.contenders).toHaveLength(1);
    await town.history.close();
  });

  it('waits where the clock is set back, rather than tell two stories of one instant', async () => {
    const clock = handClock();
    const town = await openTown({ state: aDirectory(), clock });
    const heldAt = async (at: number): Promise<unknown> =>
      (await town.history.past({ at, title: 'harbor', address: '127.1.0.1' })).scene.contenders.length;
    await town.second();
    const at = clock.now();
    clock.setNow(at - 600_000);
    await town.beat({ appliance: 'n1' });
    await town.second();
    expect(await fallbackCount(town.metrics, 'history_down_unrecorded')).toBe(1);
    await town.second(600_000);
    expect(await heldAt(at)).toBe(0);
    expect(await heldAt(clock.now())).toBe(1);
    await town.close();
    await town.history.close();
  });
});
