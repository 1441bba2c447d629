// A viewer in a real browser while the appliance that serves it dies: headless Chromium plays the two-minute title with
// hls.js, at most 10 s loaded ahead, through the real demo fleet. Killed, then (in a second run) frozen.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium, type BrowserContext, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { poll } from '../ops/ask.ts';
import type { DemoFleet } from '../ops/demo/fleet.ts';
import type { ApplianceId } from '../ops/demo/layout.ts';
import { playAnswer } from '../protocol/decision.ts';
import { startFilledFleet } from './filled-fleet.ts';
import { needsTool } from './tools.ts';

const BUFFER_S = 10;
const SEGMENTS_AFTER = 10;
const PLAY_MS = 120_000;
/** What the page waits for a box that accepts and does not answer: 3 s, once more. */
const FREEZE_POLICY_MS = 6_000;
const KILL_STALL_MS = 2_000;

interface Segment {
  readonly track: string;
  readonly pathway: string;
  readonly startS: number;
  readonly atMs: number;
}

/** The record that the page keeps, as far as it is looked at here. */
interface Recorded {
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

  /** Until a viewer would be given this appliance again. */
  async function untilRanked(id: string): Promise<void> {
    await fleet.untilAlive(id);
    const look = async (): Promise<true | null> => {
      const { pathways } = await fleet.services.steering('/v1/play/harbor', playAnswer);
      return pathways.some((pathway) => pathway.id === id) ? true : null;
    };
    const ranked = await poll(look, { everyMs: 100, signal: AbortSignal.timeout(PLAY_MS) });
    expect(ranked).toBe(true);
  }

  const look = (page: Page): Promise<Recorded> =>
    page.evaluate(() => {
      const { segments, failovers, stallsMs, positionS, bufferS, pathway, fatal } = (
        globalThis as unknown as { larderPage: Recorded }
      ).larderPage;
      return { segments: [...segments], failovers: [...failovers], stallsMs, positionS, bufferS, pathway, fatal };
    });

  async function until(page: Page, what: string, condition: (recorded: Recorded) => boolean): Promise<Recorded> {
    const end = performance.now() + PLAY_MS;
    for (;;) {
      const recorded = await look(page);
      if (recorded.fatal !== null) throw new Error(`playback ended: ${recorded.fatal}`);
      if (condition(recorded)) return recorded;
      if (performance.now() > end)
        throw new Error(
          `${what}: not within ${PLAY_MS / 1000} s; ${JSON.stringify({ ...recorded, segments: recorded.segments.length })}`,
        );
      await page.waitForTimeout(100);
    }
  }

  /** Plays until `disturb` has taken its appliance away and ten more video segments have come. */
  async function playThrough(disturb: (id: ApplianceId) => Promise<void> | void): Promise<{
    readonly lost: ApplianceId;
    readonly after: readonly Segment[];
    /** Who served picture, sound and subtitles from then on, the lost one's last segments apart. */
    readonly heirs: readonly string[];
    /** What the page says of it. */
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
      await disturb(lost);
      let bufferMostS = 0;
      const done = await until(page, 'ten more segments', ({ segments, bufferS }) => {
        bufferMostS = Math.max(bufferMostS, bufferS);
        return segments.filter((segment) => segment.track === 'video').length >= fetched + 1 + SEGMENTS_AFTER;
      });
      const after = done.segments.filter((segment) => segment.track === 'video').slice(fetched + 1);
      const later = done.segments.slice(before.segments.length).map((segment) => segment.pathway);
      const heirs = [...new Set(later)].filter((pathway) => pathway !== lost);
      const reason = done.failovers.find(({ from }) => from === lost)?.reason;
      return { lost, after, heirs, reason, stallsMs: done.stallsMs - before.stallsMs, bufferMostS };
    } finally {
      await page.close();
    }
  }

  test(
    'goes on from another appliance when its own is killed, with a stall of at most 2 s',
    { timeout: 2 * PLAY_MS },
    async () => {
      const played = await playThrough((id) => fleet.process(id).kill());
      process.stdout.write(`killed ${played.lost}: stalled ${played.stallsMs} ms, then ${played.heirs.join(', ')}\n`);
      expect(played.after.length).toBeGreaterThanOrEqual(SEGMENTS_AFTER);
      expect(played.after.map((segment) => segment.pathway)).not.toContain(played.lost);
      expect(played.heirs).toEqual([expect.stringMatching(/^(north|south)-/)]);
      expect(played.reason).toBe('connection refused or broken');
      expect(played.stallsMs).toBeLessThanOrEqual(KILL_STALL_MS);
      expect(played.bufferMostS).toBeLessThan(BUFFER_S + 4);
      await fleet.process(played.lost).start();
      await untilRanked(played.lost);
    },
  );

  test(
    'goes on from another appliance when its own is frozen, after what the load policy waits',
    { timeout: 2 * PLAY_MS },
    async () => {
      const played = await playThrough((id) => fleet.process(id).freeze());
      process.stdout.write(`froze ${played.lost}: stalled ${played.stallsMs} ms, then ${played.heirs.join(', ')}\n`);
      expect(played.after.map((segment) => segment.pathway)).not.toContain(played.lost);
      expect(played.heirs).toEqual([expect.stringMatching(/^(north|south)-/)]);
      expect(played.reason).toBe('no answer in time');
      expect(played.stallsMs).toBeLessThanOrEqual(FREEZE_POLICY_MS);
      fleet.process(played.lost).thaw();
    },
  );
});
