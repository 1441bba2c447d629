// Closed-loop load by wrk from a core of its own: random aligned ranges over a set of assets.

import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface Load {
  readonly url: string;
  readonly directory: string;
  readonly core: number;
  readonly seconds: number;
  readonly connections: number;
  readonly rangeBytes: number;
  readonly assets: number;
  readonly assetBytes: number;
  readonly env: Readonly<Record<string, string>>;
}

export interface LoadResult {
  readonly requests: number;
  readonly requestsPerSecond: number;
  readonly bytesPerSecond: number;
  readonly errors: number;
}

export async function wrk(load: Load): Promise<LoadResult> {
  const script = join(load.directory, `ranges-${load.rangeBytes}.lua`);
  writeFileSync(script, luaOf(load));
  const args = ['wrk', '-t1', `-c${load.connections}`, `-d${load.seconds}s`, '-s', script, load.url];
  const env = { ...process.env, ...load.env };
  const { stdout } = await run('taskset', ['-c', String(load.core), ...args], { env });
  const line = /^result (\d+) (\d+) (\d+) (\d+)$/m.exec(stdout)!;
  const [requests, bytes, micros, errors] = line.slice(1).map(Number) as [number, number, number, number];
  const seconds = micros / 1e6;
  return { requests, requestsPerSecond: requests / seconds, bytesPerSecond: bytes / seconds, errors };
}

function luaOf({ rangeBytes, assets, assetBytes }: Load): string {
  const slots = Math.floor(assetBytes / rangeBytes);
  return `
local cached = {}
init = function(args)
  math.randomseed(7)
  for i = 1, 1024 do
    local first = math.random(0, ${slots - 1}) * ${rangeBytes}
    cached[i] = wrk.format("GET", "/asset-" .. math.random(0, ${assets - 1}), { ["Range"] = "bytes=" .. first .. "-" .. (first + ${rangeBytes - 1}), ["Host"] = "bench" })
  end
end
local at = 0
request = function()
  at = at % 1024 + 1
  return cached[at]
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("result %d %d %d %d\\n", summary.requests, summary.bytes, summary.duration, e.connect + e.read + e.write + e.status + e.timeout))
end
`;
}
