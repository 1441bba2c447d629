// `larder demo --check`: the journeys, unattended, one check after another, each with what was measured. A check that
// fails does not stop the ones that can still be made; nothing is left running, and that is the last check.

import { connect } from 'node:net';
import { existsSync } from 'node:fs';
import { describeError, EXIT } from '../../runtime/process.ts';
import { formatDuration } from '../../protocol/units.ts';
import { CHECKS, type Check, type Scene } from './checks.ts';
import type { DemoFleet } from './fleet.ts';
import { APPLIANCES, SERVICE_HOST } from './layout.ts';
import { onStage } from './with-demo-fleet.ts';
import { groupRuns } from './process-group.ts';
import { lookOf, paint, wrap, type Look } from '../terminal.ts';

const CHECK_MS = 25_000;

export interface CheckResult {
  readonly name: string;
  readonly ok: boolean;
  /** What was measured, or what went wrong. */
  readonly detail: string;
}

export async function checkDemo(flags: {
  readonly port: number | null;
  readonly keep: boolean;
  readonly json: boolean;
}): Promise<number> {
  const startedMs = performance.now();
  const out = flags.json ? process.stderr : process.stdout;
  const look = lookOf(out, process.env);
  const results: CheckResult[] = [];
  const note = (result: CheckResult, tookMs: number): void => {
    results.push(result);
    out.write(`${formatResult(result, tookMs, look)}\n`);
  };
  let left: (() => Promise<string>) | null = null;
  const status = await onStage({ port: flags.port, keep: flags.keep, fillRate: null, ports: 'any' }, async (fleet) => {
    left = rememberWhatRuns(fleet, flags.keep);
    const scene: Scene = { fleet, killed: null };
    let broken = false;
    for (const check of CHECKS) {
      if (broken) note({ name: check.name, ok: false, detail: 'not made: a check that it builds on failed' }, 0);
      else {
        const result = await timed(() => check.run(scene), check.name, note);
        broken = !result && check.fatal;
      }
    }
    return EXIT.done;
  });
  if (left !== null) await timed(left, 'nothing is left running', note);
  if (status === EXIT.interrupted) return status;
  const ok = results.every((result) => result.ok);
  const passed = results.filter((result) => result.ok).length;
  out.write(
    `\n${paint(look, ok ? 'good' : 'bad', `${passed} of ${results.length} checks passed`)} in ${formatDuration(performance.now() - startedMs)}.\n`,
  );
  if (flags.json) process.stdout.write(`${JSON.stringify({ ok, checks: results }, null, 2)}\n`);
  return ok ? EXIT.done : EXIT.failed;
}

async function timed(
  work: () => Promise<string>,
  name: Check['name'],
  note: (result: CheckResult, tookMs: number) => void,
): Promise<boolean> {
  const startedMs = performance.now();
  let result: CheckResult;
  try {
    result = { name, ok: true, detail: await bounded(work()) };
  } catch (error) {
    result = { name, ok: false, detail: error instanceof Error ? error.message : describeError(error) };
  }
  note(result, performance.now() - startedMs);
  return result.ok;
}

async function bounded(work: Promise<string>): Promise<string> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`it did not end within ${CHECK_MS / 1000} s`)), CHECK_MS);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

const INDENT = '   ';

function formatResult(result: CheckResult, tookMs: number, look: Look): string {
  const mark = result.ok ? paint(look, 'good', '✓') : paint(look, 'bad', '✗');
  const took = formatDuration(tookMs);
  const room = look.width - INDENT.length - took.length - 1;
  const detail = wrap(result.detail, look.width - INDENT.length)
    .map((line) => INDENT + paint(look, result.ok ? 'dim' : 'bad', line))
    .join('\n');
  return ` ${mark} ${result.name.padEnd(room)} ${paint(look, 'dim', took)}\n${detail}`;
}

/** Groups, ports and directory are noted while they exist; the check afterwards looks for each of them. */
function rememberWhatRuns(fleet: DemoFleet, kept: boolean): () => Promise<string> {
  const ports: { host: string; port: number }[] = [
    ...[fleet.ports.origin, fleet.ports.fill, fleet.ports.steering].map((port) => ({ host: SERVICE_HOST, port })),
    ...APPLIANCES.flatMap(({ id, host }) => [
      { host, port: fleet.ports.appliances[id].video },
      { host: SERVICE_HOST, port: fleet.ports.appliances[id].admin },
    ]),
  ];
  return async () => {
    const groups = fleet.processes.flatMap((child) => child.groups);
    const alive = groups.filter(groupRuns);
    if (alive.length > 0) throw new Error(`process groups ${alive.join(', ')} are still there`);
    for (const at of ports) if (await accepts(at)) throw new Error(`somebody still listens on ${at.host}:${at.port}`);
    if (!kept && existsSync(fleet.directory)) throw new Error(`${fleet.directory} is still there`);
    return `${groups.length} process groups, ${ports.length} ports${kept ? '' : ' and the directory'} are gone`;
  };
}

function accepts(at: { readonly host: string; readonly port: number }): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(at);
    const end = (open: boolean): void => {
      socket.destroy();
      resolve(open);
    };
    socket.once('connect', () => end(true));
    socket.once('error', () => end(false));
  });
}
