// `larder bench NAME`: measures Larder and its peers in one run on this machine.

import { execFileSync } from 'node:child_process';
import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { Argument, type Command } from 'commander';
import { addFlags, readFlags, type Verb } from '../runtime/command.ts';
import { option } from '../runtime/config.ts';
import { packageRoot, packageVersion } from '../runtime/paths.ts';
import { EXIT } from '../runtime/process.ts';
import { admission } from './admission.ts';
import { isExcused, meetsBar, type Bench } from './bench.ts';
import { drawChart, type RecordedResult } from './chart.ts';
import { cold } from './cold.ts';
import { disk } from './disk.ts';
import { fill } from './fill.ts';
import { herd } from './herd.ts';
import { load } from './load.ts';
import { memory } from './memory.ts';
import { miss } from './miss.ts';
import { formatOutcome } from './report.ts';
import { restart } from './restart.ts';
import { serve } from './serve.ts';
import { tls } from './tls.ts';

const BENCHES: readonly Bench[] = [serve, tls, load, miss, cold, herd, restart, memory, disk, fill, admission];

const TABLE = {
  small: option.flag({ doc: 'A short run that only shows that the bench works' }),
  assert: option.flag({ doc: 'Exit 1 where a bar is missed' }),
  keep: option.flag({ doc: 'Append the result to bench/results, and draw its chart' }),
  trace: option.optional(
    option.path({ doc: 'admission: a recorded trace to replay (oracleGeneral, CSV, request.trace)' }),
  ),
  json: option.flag({ doc: 'Print JSON alone on stdout' }),
} as const;

export const verb: Verb = {
  build(command: Command): void {
    const list = BENCHES.map((bench) => `  ${bench.name.padEnd(10)}${bench.question}`).join('\n');
    const packages = [...new Set(BENCHES.flatMap((bench) => bench.packages))].sort().join(' ');
    addFlags(command, TABLE, 'no file').addHelpText(
      'after',
      `\nBenches:\n${list}\n\nNeeds: apt-get install ${packages}`,
    );
    command.addArgument(new Argument('<name>', 'which').choices(BENCHES.map((bench) => bench.name)));
    command.action(async (name: string) => {
      const flags = readFlags(command, TABLE);
      const bench = BENCHES.find((each) => each.name === name)!;
      const parameters = flags.small ? bench.small : bench.large;
      const outcome = await bench.run(parameters, (progress) => process.stderr.write(`${progress}\n`), {
        trace: flags.trace,
      });
      const result = { bench: name, version: packageVersion, ...machineFacts(), parameters, ...outcome };
      if (flags.keep) record(name, result);
      process.stdout.write(flags.json ? `${JSON.stringify(result)}\n` : formatOutcome(bench, outcome));
      process.exitCode =
        flags.assert && !outcome.findings.every((each) => meetsBar(each) || isExcused(each)) ? EXIT.failed : EXIT.done;
    });
  },
};

function machineFacts(): {
  readonly cpu: string;
  readonly cores: number;
  readonly node: string;
  readonly commit: string;
  readonly at: string;
} {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    node: process.version,
    commit: currentCommit(),
    at: new Date().toISOString(),
  };
}

/** An installed package has no git history. */
function currentCommit(): string {
  try {
    return execFileSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: packageRoot, encoding: 'utf8' }).trim();
  } catch {
    return 'unknown';
  }
}

/** Appends the result to its file and redraws the chart from the last result of every bench. */
function record(name: string, result: object): void {
  const directory = join(packageRoot, 'bench', 'results');
  mkdirSync(directory, { recursive: true });
  appendFileSync(join(directory, `${name}.jsonl`), `${JSON.stringify(result)}\n`);
  const last = BENCHES.map((bench) => join(directory, `${bench.name}.jsonl`))
    .filter((file) => existsSync(file))
    .map((file) => JSON.parse(readFileSync(file, 'utf8').trim().split('\n').at(-1)!) as RecordedResult);
  writeFileSync(join(directory, 'chart.svg'), drawChart(last));
}
