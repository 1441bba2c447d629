// Refusals of fill as the command line shows them: in terms of flags and arguments, with a fitting remedy, and as JSON.

import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { FaultBody } from '../../protocol/faults.ts';
import { packageRoot } from '../../runtime/paths.ts';
import { FillHarness } from './fill-harness.ts';
import { putFilm } from './origin-double.ts';

let harness: FillHarness;

beforeAll(async () => {
  harness = await FillHarness.start();
  putFilm(harness.origin, '/film/');
  await harness.importTitle('/film/master.m3u8');
  harness.fleet.add('north-1');
});

afterAll(() => harness.stop());

interface CommandResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

function larder(...args: readonly string[]): Promise<CommandResult> {
  return new Promise((resolve) => {
    const env = { PATH: process.env['PATH'], LARDER_HOME: harness.directory, LARDER_FILL: harness.url };
    execFile(process.execPath, [join(packageRoot, 'dist', 'larder.js'), ...args], { env }, (error, stdout, stderr) =>
      resolve({ status: error === null ? 0 : Number(error.code), stdout, stderr }),
    );
  });
}

test.each([
  [
    'fill pin film --until 2020-01-01T00:00Z',
    2,
    '--until is 2020-01-01T00:00:00.000Z: the instant has passed',
    '--help',
  ],
  [
    'catalog import http://elsewhere.example/a.mpd',
    2,
    'URL is http://elsewhere.example/a.mpd: a title must lie',
    '--help',
  ],
  ['catalog import ORIGIN/%C3%BC/master.m3u8', 2, '--title: no title id can be made of', '--help'],
  ['fill pin Film', 2, 'TITLE is "Film": use 1 to 63 of a-z', '--help'],
  ['catalog show nothing', 1, 'there are film', 'larder catalog ls'],
  ['fill status r99', 1, 'no run "r99" is known', 'larder fill status'],
  ['fill run --now --site nowhere', 1, 'no site "nowhere" is known; there are north', 'larder appliance ls'],
  ['fill unpin film', 1, 'title "film" is not pinned', 'larder fill pin'],
])('larder %s exits with %i and names the argument and the remedy', async (line, status, message, remedy) => {
  const args = line.replace('ORIGIN', harness.originUrl).split(' ');
  const result = await larder(...args, '--json');
  expect(result.status, result.stderr).toBe(status);
  const { error } = JSON.parse(result.stdout) as FaultBody;
  expect(error.message).toContain(message);
  expect(error.help).toContain(remedy);
  for (const text of [result.stderr, result.stdout]) {
    expect(text).toContain(remedy);
    expect(text).not.toMatch(/\b(body|path|query)\./);
  }
  const plain = await larder(...args);
  expect([plain.status, plain.stdout, plain.stderr]).toEqual([status, '', result.stderr]);
});
