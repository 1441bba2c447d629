// Question: how fast does a fill fetch, verify and store a title, compared with a download manager that fetches the same files?
// Decision it informs: how many requests for a plan are under way, and what a fill waits for.

import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { systemClock } from '../runtime/clock.ts';
import { run } from '../protocol/plan.ts';
import { packageRoot } from '../runtime/paths.ts';
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
import { freePort, SERVER_CORE, waitForResponse, withTestbed, type Testbed } from './testbed.ts';

const RATIO_MIN = 0.9;
const CONNECTIONS = 8;
const APPLIANCE = 'box';
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
      const fleet = await startFleet(testbed, origin);
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
  readonly fleet: Fleet;
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
      return name === 'larder' ? fleet.fill(title, id) : download(testbed, origin, title, id);
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

interface Fleet {
  /** Imports the title, fills it, and returns megabytes a second from the first request of the fill to its end. */
  fill(title: Title, id: string): Promise<number>;
}

/** Steering, fill and one appliance that is pinned to the core of the contestants. */
async function startFleet(testbed: Testbed, origin: DelayedOrigin): Promise<Fleet> {
  const home = testbed.makeDirectory('fleet');
  const larder = [process.execPath, join(packageRoot, 'dist', 'larder.js')];
  const [steering, fill, video, admin] = await Promise.all(
    [freePort(), freePort(), freePort(), freePort()].map((port) => port.then((each) => `127.0.0.1:${each}`)),
  );
  const key = ['--fleet-key', join(home, 'fleet.key')];
  const services = ['--steering', `http://${steering}`, '--fill', `http://${fill}`];
  const start = async (name: string, core: number, ready: string, args: readonly string[]): Promise<void> => {
    mkdirSync(join(home, name));
    const process = testbed.spawn(name, core, [...larder, ...args, '--state', join(home, name), ...key]);
    await waitForResponse(`http://${ready}`, process);
  };
  const other = 1 - SERVER_CORE;
  await start('fill', other, `${fill}/healthz`, [
    'fill',
    'serve',
    '--listen',
    fill!,
    '--origin',
    origin.url,
    ...services.slice(0, 2),
  ]);
  await start('steering', other, `${steering}/healthz`, [
    'steering',
    'run',
    '--listen',
    steering!,
    '--origin',
    origin.url,
    ...services.slice(2),
  ]);
  await start('appliance', SERVER_CORE, `${admin}/readyz`, [
    ...['appliance', 'run', '--id', APPLIANCE, '--site', 'site', '--listen', video!, '--advertise', `http://${video}`],
    ...[
      '--admin',
      admin!,
      '--origin',
      origin.url,
      '--store',
      join(home, 'store'),
      '--store-bytes',
      '20GB',
      '--workers',
      '1',
    ],
    ...services,
  ]);
  const verb = async (...args: readonly string[]): Promise<string> => {
    const { stdout } = await execute(larder[0]!, [larder[1]!, ...args, ...services, ...key, '--json']);
    return stdout;
  };
  return {
    fill: async ({ segments, bytes }, id) => {
      await verb('catalog', 'import', `${origin.url}/hls/${segments}/${bytes}/${id}/master.m3u8`, '--title', id);
      const ended = run.parse(JSON.parse(await verb('fill', 'run', '--now', '--title', id)));
      const progress = ended.appliances.find(({ appliance }) => appliance === APPLIANCE);
      if (progress?.state !== 'done' || progress.bytesDone < segments * bytes)
        throw new Error(
          `the fill of ${id} ended ${progress?.state} with ${progress?.bytesDone} of ${segments * bytes} bytes`,
        );
      return progress.bytesPerSecond / 1e6;
    },
  };
}
