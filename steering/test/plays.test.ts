// Play reports: every play is counted once, a report is sent until fill acknowledges it, and its rows are bounded.

import { afterEach, describe, expect, it } from 'vitest';
import { PLAY_REPORT_ROWS_MAX } from '../../protocol/plays.ts';
import { silentLog } from '../../runtime/log.ts';
import { createMetrics } from '../../runtime/metrics.ts';
import { METRICS } from '../metrics.ts';
import { runPlayReports, PlayCounter, sendPlayReport, type PlayReportDeps } from '../plays.ts';
import type { ManualClock } from '../../runtime/test/manual-clock.ts';
import { openFillStub, fallbackCount, manualClock, metricValue, tokenOf, type FillStub } from './harness.ts';

let fill: FillStub | null = null;
afterEach(async () => {
  await fill?.close();
  fill = null;
});

async function start(): Promise<PlayReportDeps & { readonly clock: ManualClock; readonly fill: FillStub }> {
  fill = await openFillStub(() => ({ protocol: 1, revision: 0, titles: [], removed: [], more: false }));
  const base = { clock: manualClock(), metrics: createMetrics(METRICS), log: silentLog };
  return { ...base, fill, plays: new PlayCounter(base), fillUrl: fill.url, token: tokenOf('service', 'steering') };
}

describe('play reports', () => {
  it('sum plays by title and site and follow one another without a gap in sequence or time', async () => {
    const deps = await start();
    deps.plays.count('harbor', 'north');
    deps.plays.count('harbor', 'north');
    deps.plays.count('harbor', null);
    deps.clock.advance(10_000);
    expect(await sendPlayReport(deps)).toBe(true);
    deps.plays.count('meadow', 'south');
    deps.clock.advance(10_000);
    await sendPlayReport(deps);
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

  it('without plays are not sent', async () => {
    const deps = await start();
    await sendPlayReport(deps);
    expect(deps.fill.reports).toEqual([]);
  });

  it('are repeated unchanged until acknowledged, and later plays go into the next one', async () => {
    const deps = await start();
    deps.plays.count('harbor', 'north');
    deps.fill.failWith = 503;
    expect(await sendPlayReport(deps)).toBe(false);
    expect(await fallbackCount(deps.metrics, 'fill_down_reports_kept')).toBe(1);
    deps.plays.count('harbor', 'north');
    deps.fill.failWith = null;
    await sendPlayReport(deps);
    await sendPlayReport(deps);
    expect(deps.fill.reports.map(({ seq, asked }) => [seq, asked[0]!.plays])).toEqual([
      [1, 1],
      [2, 1],
    ]);
  });

  it('that fill refuses as invalid are dropped and do not block later ones', async () => {
    const deps = await start();
    deps.plays.count('harbor', 'north');
    deps.fill.failWith = 422;
    expect(await sendPlayReport(deps)).toBe(true);
    expect(await metricValue(deps.metrics, 'larder_steering_play_rows_dropped_total')).toBe(1);
    deps.fill.failWith = null;
    deps.plays.count('meadow', 'north');
    await sendPlayReport(deps);
    expect(deps.fill.reports.map(({ asked }) => asked[0]!.title)).toEqual(['meadow']);
  });

  it('stay within their bound while fill is down', async () => {
    const deps = await start();
    for (let at = 0; at < PLAY_REPORT_ROWS_MAX + 7; at += 1) deps.plays.count(`t${at}`, null);
    expect(deps.plays.nextReport()!.asked).toHaveLength(PLAY_REPORT_ROWS_MAX);
    expect(await metricValue(deps.metrics, 'larder_steering_play_rows_dropped_total')).toBe(7);
  });

  it('are sent a last time when steering stops', async () => {
    const deps = await start();
    const stop = new AbortController();
    const loop = runPlayReports(deps, stop.signal);
    deps.plays.count('harbor', 'north');
    stop.abort();
    await loop;
    expect(deps.fill.reports).toHaveLength(1);
  });
});
