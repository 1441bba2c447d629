// ffmpeg as a player: every HLS and DASH title, fetched through steering and an appliance, decodes to the same video and audio frames
// as the files on disk.

import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { DemoFleet } from '../ops/demo/fleet.ts';
import { startFilledFleet } from './filled-fleet.ts';
import { needsTool } from './tools.ts';

const DECODE_MS = 120_000;
const OUTPUT_BYTES_MAX = 64 * 2 ** 20;
const run = promisify(execFile);
const ffmpeg = needsTool('ffmpeg');

const PULLS = [
  { title: 'harbor', manifest: 'master.m3u8', streams: ['0:v:0', '0:v:1', '0:v:2', '0:a:0', '0:a:1'] },
  { title: 'harbor', manifest: 'manifest.mpd', streams: ['0:v:0', '0:v:1', '0:v:2', '0:a:0', '0:a:1'] },
  { title: 'meadow', manifest: 'master.m3u8', streams: ['0:v:0', '0:v:1', '0:v:2', '0:a:0'] },
  { title: 'meadow', manifest: 'manifest.mpd', streams: ['0:v:0', '0:v:1', '0:v:2', '0:a:0'] },
  { title: 'tunnel', manifest: 'master.m3u8', streams: ['0:v:0', '0:v:1', '0:v:2', '0:a:0', '0:a:1', '0:a:2'] },
] as const;

describe.skipIf(ffmpeg === null)('ffmpeg through steering', () => {
  let fleet: DemoFleet;

  beforeAll(async () => {
    fleet = await startFilledFleet();
  }, DECODE_MS);

  afterAll(() => fleet?.close());

  test.each(PULLS)(
    '$title/$manifest decodes to the frames of the local files',
    { timeout: 2 * DECODE_MS },
    async ({ title, manifest, streams }) => {
      const steered = await frames(`${fleet.urls.steering}/v1/titles/${title}/${manifest}?pathways=2`, streams);
      const local = await frames(join(fleet.media, title, manifest), streams);
      expect(local.length).toBeGreaterThan(500);
      expect(steered.length).toBe(local.length);
      expect(steered).toEqual(local);
    },
  );

  /** Stream, duration, size and hash of each decoded frame. */
  async function frames(input: string, streams: readonly string[]): Promise<string[]> {
    const allow = input.startsWith('http') ? [] : ['-allowed_extensions', 'ALL'];
    const maps = streams.flatMap((stream) => ['-map', stream]);
    const { stdout } = await run(
      ffmpeg!,
      ['-v', 'error', '-threads', '1', ...allow, '-i', input, ...maps, '-f', 'framemd5', '-'],
      { timeout: DECODE_MS, maxBuffer: OUTPUT_BYTES_MAX },
    );
    return stdout.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  }
});
