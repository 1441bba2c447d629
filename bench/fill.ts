// Question: how fast does a fill fetch, verify and store a title, compared with a download manager that fetches the same files?
// Decision it informs: how many requests for a plan are under way, and what a fill waits for.

import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { systemClock } from '../runtime/clock.ts';
import {
  compareWithPeers,
  interleave,
  ratioAtLeast,
  type Bench,
  type Finding,
  type Parameters,
  type Peer,
} from './bench.ts';
import { startDelayedOrigin, type DelayedOrigin } from './delayed-origin.ts';
import { startFleet, type BenchFleet } from './fleet.ts';
import { SERVER_CORE, withTestbed, type Testbed } from './testbed.ts';

const RATIO_MIN = 0.9;
const CONNECTIONS = 8;
const MIB = 2 ** 20;
const ARIA2: Peer = {
  name: 'aria2c',
  role: 'cache',
  configuration: `-x${CONNECTIONS} -s${CONNECTIONS} -j${CONNECTIONS} -k1M --file-allocation=none, without checksums`,
};

const execute = promisify(execFile);

/** A title: so many segments of so many bytes. */
interface Title {
  readonly what: string;
  readonly segments: number;
  readonly bytes: number;
}

export const fill: Bench = {
  name: 'fill',
  question: 'a title filled and verified, its origin 50 ms and 25 MB/s per connection away',
  packages: ['aria2'],
  small: { rounds: 1, roundTripMs: 50, connectionMBps: 25, bigMiB: 32, smallSegments: 20, smallKiB: 512 },
  large: { rounds: 5, roundTripMs: 50, connectionMBps: 25, bigMiB: 512, smallSegments: 400, smallKiB: 1_024 },
  run: (parameters, log) =>
    withTestbed(async (testbed) => {
      const origin = await startDelayedOrigin(testbed, {
        roundTripMs: parameters['roundTripMs']!,
        bytesPerSecond: parameters['connectionMBps']! * 1e6,
      });
      const fleet = await startFleet(testbed, { origin: origin.url });
      const titles: Title[] = [
        { what: 'one big file', segments: 1, bytes: parameters['bigMiB']! * MIB },
        {
          what: `${parameters['smallSegments']} small files`,
          segments: parameters['smallSegments']!,
          bytes: parameters['smallKiB']! * 1_024,
        },
      ];
      const findings: Finding[] = [];
      for (const title of titles) findings.push(await compareFills({ testbed, fleet, origin, title, parameters, log }));
      return { peers: [ARIA2], findings };
    }),
};

async function compareFills(spec: {
  readonly testbed: Testbed;
  readonly fleet: BenchFleet;
  readonly origin: DelayedOrigin;
  readonly title: Title;
  readonly parameters: Parameters;
  readonly log: (progress: string) => void;
}): Promise<Finding> {
  const { testbed, fleet, origin, title, parameters, log } = spec;
  const contestants = [{ name: 'larder' }, ARIA2];
  const samples = await interleave(
    { rounds: parameters['rounds']!, contestants, log: (progress) => log(`${title.what}: ${progress}`) },
    ({ name }, round) => {
      const id = `t${title.segments}r${round}`;
      return name === 'larder' ? fillTitle(fleet, origin, title, id) : download(testbed, origin, title, id);
    },
  );
  const finding = { what: title.what, unit: 'MB/s', better: 'more', samples, peers: [ARIA2] } as const;
  return compareWithPeers({ ...finding, bar: ratioAtLeast(RATIO_MIN) });
}

async function download(testbed: Testbed, origin: DelayedOrigin, title: Title, id: string): Promise<number> {
  const directory = testbed.makeDirectory('aria2');
  const list = join(directory, 'urls');
  const urls = Array.from(
    { length: title.segments },
    (_, at) => `${origin.url}/hls/${title.segments}/${title.bytes}/${id}/${at}.ts`,
  );
  writeFileSync(list, urls.join('\n'));
  const limits = [`-x${CONNECTIONS}`, `-s${CONNECTIONS}`, `-j${CONNECTIONS}`, '-k1M', '--file-allocation=none'];
  const startMs = systemClock.monotonic();
  await execute('taskset', ['-c', String(SERVER_CORE), 'aria2c', '-q', ...limits, '-d', directory, '-i', list]);
  return (title.segments * title.bytes) / 1e3 / (systemClock.monotonic() - startMs);
}

/** Imports the title, fills it, and returns megabytes a second from the first request of the fill to its end. */
async function fillTitle(fleet: BenchFleet, origin: DelayedOrigin, title: Title, id: string): Promise<number> {
  const { segments, bytes } = title;
  await fleet.importTitle(`${origin.url}/hls/${segments}/${bytes}/${id}/master.m3u8`, id);
  const { bytesDone, bytesPerSecond } = await fleet.fill(id);
  if (bytesDone < segments * bytes)
    throw new Error(`the fill of ${id} brought ${bytesDone} of ${segments * bytes} bytes`);
  return bytesPerSecond / 1e6;
}
