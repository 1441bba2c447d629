// Playback in a real browser while the appliance that serves it fails: headless Chromium plays the two-minute title with hls.js and a
// buffer of at most 10 s from the demo fleet. The appliance is killed in one test and frozen in another.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium, type BrowserContext, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { poll } from '../ops/poll.ts';
import type { DemoFleet } from '../ops/demo/fleet.ts';
import type { ApplianceId } from '../ops/demo/layout.ts';
import { playAnswer } from '../protocol/decision.ts';
import { systemClock } from '../runtime/clock.ts';
import { startFilledFleet } from './filled-fleet.ts';
import { needsTool } from './tools.ts';

const BUFFER_S = 10;
const SEGMENTS_AFTER = 10;
const PLAY_MS = 120_000;
/** How long the page waits for an appliance that does not respond: 3 s, with one retry. */
const FREEZE_POLICY_MS = 6_000;
const KILL_STALL_MS = 2_000;

interface Segment {
  readonly track: string;
  readonly pathway: string;
  readonly startS: number;
  readonly atMs: number;
}

/** The parts of the page's playback record that the tests use. */
interface PlaybackRecord {
  readonly segments: readonly Segment[];
  readonly failovers: readonly { readonly from: string; readonly reason: string }[];
  readonly stallsMs: number;
  readonly positionS: number;
  readonly bufferS: number;
  readonly pathway: string | null;
  readonly fatal: string | null;
}

const browserPath = needsTool('chromium');

describe.skipIf(browserPath === null)('a title played in Chromium', () => {
  let fleet: DemoFleet;
  let context: BrowserContext;
  let profile: string;

  beforeAll(async () => {
    fleet = await startFilledFleet();
    profile = mkdtempSync(join(tmpdir(), 'larder-chromium-'));
    context = await chromium.launchPersistentContext(profile, {
      executablePath: browserPath!,
      headless: true,
      args: [
        ...['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'],
        ...[
          '--disable-component-update',
          '--disable-sync',
          '--autoplay-policy=no-user-gesture-required',
          '--mute-audio',
        ],
      ],
    });
  }, 120_000);

  afterAll(async () => {
    await context?.close();
    await fleet?.close();
    if (profile !== undefined) rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  });

  /** Waits until steering ranks this appliance again. */
  async function waitUntilRanked(id: string): Promise<void> {
    await fleet.waitUntilAlive(id);
    const isRanked = async (): Promise<true | null> => {
      const { pathways } = await fleet.client.steering('/v1/play/harbor', playAnswer);
      return pathways.some((pathway) => pathway.id === id) ? true : null;
    };
    const ranked = await poll(isRanked, { everyMs: 100, signal: AbortSignal.timeout(PLAY_MS) });
    expect(ranked).toBe(true);
  }

  const readRecord = (page: Page): Promise<PlaybackRecord> =>
    page.evaluate(() => {
      const { segments, failovers, stallsMs, positionS, bufferS, pathway, fatal } = (
        globalThis as unknown as { larderPage: PlaybackRecord }
      ).larderPage;
      return { segments: [...segments], failovers: [...failovers], stallsMs, positionS, bufferS, pathway, fatal };
    });

  async function until(
    page: Page,
    what: string,
    condition: (record: PlaybackRecord) => boolean,
  ): Promise<PlaybackRecord> {
    const endMs = systemClock.monotonic() + PLAY_MS;
    for (;;) {
      const record = await readRecord(page);
      if (record.fatal !== null) throw new Error(`playback ended: ${record.fatal}`);
      if (condition(record)) return record;
      if (systemClock.monotonic() > endMs)
        throw new Error(
          `${what}: not within ${PLAY_MS / 1000} s; ${JSON.stringify({ ...record, segments: record.segments.length })}`,
        );
      await page.waitForTimeout(100);
    }
  }

  /** Plays a title, calls `disable` for the appliance that serves it, and waits for ten more video segments. */
  async function playThrough(disable: (id: ApplianceId) => Promise<void> | void): Promise<{
    readonly lost: ApplianceId;
    readonly after: readonly Segment[];
    /** The pathways that served video, audio and subtitles afterwards, except the lost one. */
    readonly successors: readonly string[];
    /** The reason for the fail-over that the page shows. */
    readonly reason: string | undefined;
    readonly stallsMs: number;
    readonly bufferMostS: number;
  }> {
    const page = await context.newPage();
    try {
      await page.goto(`${fleet.urls.steering}/ui/?title=harbor&buffer=${BUFFER_S}`);
      await page.waitForFunction(
        () => (globalThis as unknown as { larderPage?: { ready: boolean } }).larderPage?.ready === true,
      );
      const before = await until(
        page,
        'playback runs with a full buffer',
        ({ positionS, bufferS }) => positionS > 4 && bufferS > BUFFER_S - 4,
      );
      const lost = before.pathway as ApplianceId;
      expect(lost).toMatch(/^north-/);
      const fetched = before.segments.filter((segment) => segment.track === 'video').length;
      await disable(lost);
      let bufferMostS = 0;
      const done = await until(page, 'ten more segments', ({ segments, bufferS }) => {
        bufferMostS = Math.max(bufferMostS, bufferS);
        return segments.filter((segment) => segment.track === 'video').length >= fetched + 1 + SEGMENTS_AFTER;
      });
      const after = done.segments.filter((segment) => segment.track === 'video').slice(fetched + 1);
      const later = done.segments.slice(before.segments.length).map((segment) => segment.pathway);
      const successors = [...new Set(later)].filter((pathway) => pathway !== lost);
      const reason = done.failovers.find(({ from }) => from === lost)?.reason;
      return { lost, after, successors, reason, stallsMs: done.stallsMs - before.stallsMs, bufferMostS };
    } finally {
      await page.close();
    }
  }

  test(
    'continues from another appliance after a kill, with a stall of at most 2 s',
    { timeout: 2 * PLAY_MS },
    async () => {
      const played = await playThrough((id) => fleet.process(id).kill());
      process.stdout.write(
        `killed ${played.lost}: stalled ${played.stallsMs} ms, then ${played.successors.join(', ')}\n`,
      );
      expect(played.after.length).toBeGreaterThanOrEqual(SEGMENTS_AFTER);
      expect(played.after.map((segment) => segment.pathway)).not.toContain(played.lost);
      expect(played.successors).toEqual([expect.stringMatching(/^(north|south)-/)]);
      expect(played.reason).toBe('connection refused or broken');
      expect(played.stallsMs).toBeLessThanOrEqual(KILL_STALL_MS);
      expect(played.bufferMostS).toBeLessThan(BUFFER_S + 4);
      await fleet.process(played.lost).start();
      await waitUntilRanked(played.lost);
    },
  );

  test(
    'continues from another appliance after a freeze, within the timeouts of the load policy',
    { timeout: 2 * PLAY_MS },
    async () => {
      const played = await playThrough((id) => fleet.process(id).freeze());
      process.stdout.write(
        `froze ${played.lost}: stalled ${played.stallsMs} ms, then ${played.successors.join(', ')}\n`,
      );
      expect(played.after.map((segment) => segment.pathway)).not.toContain(played.lost);
      expect(played.successors).toEqual([expect.stringMatching(/^(north|south)-/)]);
      expect(played.reason).toBe('no answer in time');
      expect(played.stallsMs).toBeLessThanOrEqual(FREEZE_POLICY_MS);
      fleet.process(played.lost).thaw();
    },
  );
});
