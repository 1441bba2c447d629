// Play reports: counted once, sent until answered, bounded.

import { afterEach, describe, expect, it } from 'vitest';
import { PLAY_REPORT_ROWS_MAX } from '../../protocol/plays.ts';
import { silentLog } from '../../runtime/log.ts';
import { createMetrics } from '../../runtime/metrics.ts';
import { METRICS } from '../metrics.ts';
import { keepReporting, Plays, reportPlays, type PlayReportDeps } from '../plays.ts';
import type { ManualClock } from '../../runtime/test/manual-clock.ts';
import { aFill, fallbackCount, handClock, sample, tokenOf, type FillStub } from './stage.ts';

let fill: FillStub | null = null;
afterEach(async () => {
  await fill?.close();
  fill = null;
});

async function start(): Promise<PlayReportDeps & { readonly clock: ManualClock; readonly fill: FillStub }> {
  fill = await aFill(() => ({ protocol: 1, revision: 0, titles: [], removed: [], more: false }));
  const base = { clock: handClock(), metrics: createMetrics(METRICS), log: silentLog };
  return { ...base, fill, plays: new Plays(base), fillUrl: fill.url, token: tokenOf('service', 'steering') };
}

describe('play reports', () => {
  it('sum plays by title and site, and rise in sequence without a gap of time', async () => {
    const deps = await start();
    deps.plays.count('harbor', 'north');
    deps.plays.count('harbor', 'north');
    deps.plays.count('harbor', null);
    deps.clock.advance(10_000);
    expect(await reportPlays(deps)).toBe(true);
    deps.plays.count('meadow', 'south');
    deps.clock.advance(10_000);
    await reportPlays(deps);
    const [first, second] = deps.fill.reports;
    expect(first!.asked).toEqual([
      { title: 'harbor', site: 'north', plays: 2 },
      { title: 'harbor', site: null, plays: 1 },
    ]);
    expect(second).toMatchObject({
      source: 'steering',
      seq: first!.seq + 1,
      from: first!.to,
      incarnation: first!.incarnation,
    });
  });

  it('with nothing asked are not sent', async () => {
    const deps = await start();
    await reportPlays(deps);
    expect(deps.fill.reports).toEqual([]);
  });

  it('that fill did not answer are sent again unchanged, and what came since goes with the next', async () => {
    const deps = await start();
    deps.plays.count('harbor', 'north');
    deps.fill.failWith = 503;
    expect(await reportPlays(deps)).toBe(false);
    expect(await fallbackCount(deps.metrics, 'fill_down_reports_kept')).toBe(1);
    deps.plays.count('harbor', 'north');
    deps.fill.failWith = null;
    await reportPlays(deps);
    await reportPlays(deps);
    expect(deps.fill.reports.map(({ seq, asked }) => [seq, asked[0]!.plays])).toEqual([
      [1, 1],
      [2, 1],
    ]);
  });

  it('that fill refuses for what they are do not block those behind them', async () => {
    const deps = await start();
    deps.plays.count('harbor', 'north');
    deps.fill.failWith = 422;
    expect(await reportPlays(deps)).toBe(true);
    expect(await sample(deps.metrics, 'larder_steering_play_rows_dropped_total')).toBe(1);
    deps.fill.failWith = null;
    deps.plays.count('meadow', 'north');
    await reportPlays(deps);
    expect(deps.fill.reports.map(({ asked }) => asked[0]!.title)).toEqual(['meadow']);
  });

  it('keep to their bound while fill is away', async () => {
    const deps = await start();
    for (let at = 0; at < PLAY_REPORT_ROWS_MAX + 7; at += 1) deps.plays.count(`t${at}`, null);
    expect(deps.plays.next()!.asked).toHaveLength(PLAY_REPORT_ROWS_MAX);
    expect(await sample(deps.metrics, 'larder_steering_play_rows_dropped_total')).toBe(7);
  });

  it('are sent once more when steering stops', async () => {
    const deps = await start();
    const stop = new AbortController();
    const loop = keepReporting(deps, stop.signal);
    deps.plays.count('harbor', 'north');
    stop.abort();
    await loop;
    expect(deps.fill.reports).toHaveLength(1);
  });
});
