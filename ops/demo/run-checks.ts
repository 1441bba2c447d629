// `larder demo --check`: runs the checks one after another without an operator, each with what it measured. After a failed check
// the others still run, unless they depend on it. The last check is that nothing is left running.

import { existsSync } from 'node:fs';
import { connect } from 'node:net';
import { formatDuration } from '../../protocol/units.ts';
import { systemClock, type Timer } from '../../runtime/clock.ts';
import { describeError, EXIT } from '../../runtime/process.ts';
import { paint, terminalStyle, wrap, type TerminalStyle } from '../terminal.ts';
import { CHECKS, type CheckContext } from './checks.ts';
import type { DemoFleet } from './fleet.ts';
import { APPLIANCES, SERVICE_HOST } from './layout.ts';
import { isGroupAlive } from './process-group.ts';
import { withDemoFleet } from './with-demo-fleet.ts';

const CHECK_TIMEOUT_MS = 25_000;
const INDENT = '   ';

interface CheckResult {
  readonly name: string;
  readonly ok: boolean;
  /** What was measured, or why the check failed. */
  readonly detail: string;
}

type Report = (result: CheckResult, tookMs: number) => void;

/** Resolves to the exit status. With `json` the results go to stdout as JSON, and the text goes to stderr. */
export async function runChecks(flags: {
  readonly port: number | null;
  readonly keep: boolean;
  readonly json: boolean;
}): Promise<number> {
  const startedMs = systemClock.monotonic();
  const out = flags.json ? process.stderr : process.stdout;
  const style = terminalStyle(out, process.env);
  const results: CheckResult[] = [];
  const report: Report = (result, tookMs) => {
    results.push(result);
    out.write(`${formatResult(result, tookMs, style)}\n`);
  };
  let findLeftovers: (() => Promise<string>) | null = null;
  const status = await withDemoFleet(
    { port: flags.port, keep: flags.keep, fillRate: null, ports: 'any' },
    async (fleet) => {
      findLeftovers = leftoverCheck(fleet, flags.keep);
      await runFleetChecks(fleet, report);
      return EXIT.done;
    },
  );
  if (findLeftovers !== null) await runCheck('nothing is left running', findLeftovers, report);
  if (status === EXIT.interrupted) return status;
  const ok = results.every((result) => result.ok);
  const passed = results.filter((result) => result.ok).length;
  const summary = paint(style, ok ? 'good' : 'bad', `${passed} of ${results.length} checks passed`);
  out.write(`\n${summary} in ${formatDuration(systemClock.monotonic() - startedMs)}.\n`);
  if (flags.json) process.stdout.write(`${JSON.stringify({ ok, checks: results }, null, 2)}\n`);
  return ok ? EXIT.done : EXIT.failed;
}

async function runFleetChecks(fleet: DemoFleet, report: Report): Promise<void> {
  const context: CheckContext = { fleet, killed: null };
  let fatal = false;
  for (const check of CHECKS) {
    if (fatal) report({ name: check.name, ok: false, detail: 'not run: a check that it depends on failed' }, 0);
    else fatal = !(await runCheck(check.name, () => check.run(context), report)) && check.fatal;
  }
}

/** Resolves to whether the check passed. */
async function runCheck(name: string, work: () => Promise<string>, report: Report): Promise<boolean> {
  const startedMs = systemClock.monotonic();
  let result: CheckResult;
  try {
    result = { name, ok: true, detail: await withTimeout(work()) };
  } catch (error) {
    result = { name, ok: false, detail: error instanceof Error ? error.message : describeError(error) };
  }
  report(result, systemClock.monotonic() - startedMs);
  return result.ok;
}

async function withTimeout(work: Promise<string>): Promise<string> {
  let timer: Timer | null = null;
  const timeout = new Promise<never>((_resolve, reject) => {
    timer = systemClock.setTimeout(
      () => reject(new Error(`it did not end within ${CHECK_TIMEOUT_MS / 1000} s`)),
      CHECK_TIMEOUT_MS,
    );
  });
  try {
    return await Promise.race([work, timeout]);
  } finally {
    systemClock.clear(timer);
  }
}

function formatResult(result: CheckResult, tookMs: number, style: TerminalStyle): string {
  const mark = result.ok ? paint(style, 'good', '✓') : paint(style, 'bad', '✗');
  const took = formatDuration(tookMs);
  const nameWidth = style.width - INDENT.length - took.length - 1;
  const detail = wrap(result.detail, style.width - INDENT.length)
    .map((line) => INDENT + paint(style, result.ok ? 'dim' : 'bad', line))
    .join('\n');
  return ` ${mark} ${result.name.padEnd(nameWidth)} ${paint(style, 'dim', took)}\n${detail}`;
}

/** Records process groups, ports and directory of the running fleet. The returned check fails if any of them still exists. */
function leftoverCheck(fleet: DemoFleet, kept: boolean): () => Promise<string> {
  const addresses = [
    ...[fleet.ports.origin, fleet.ports.fill, fleet.ports.steering].map((port) => ({ host: SERVICE_HOST, port })),
    ...APPLIANCES.flatMap(({ id, host }) => [
      { host, port: fleet.ports.appliances[id].video },
      { host: SERVICE_HOST, port: fleet.ports.appliances[id].admin },
    ]),
  ];
  return async () => {
    const groups = fleet.processes.flatMap((child) => child.groups);
    const alive = groups.filter(isGroupAlive);
    if (alive.length > 0) throw new Error(`process groups ${alive.join(', ')} are still there`);
    for (const address of addresses)
      if (await isListening(address)) throw new Error(`a process still listens on ${address.host}:${address.port}`);
    if (!kept && existsSync(fleet.directory)) throw new Error(`${fleet.directory} is still there`);
    return `${groups.length} process groups, ${addresses.length} ports${kept ? '' : ' and the directory'} are gone`;
  };
}

function isListening(address: { readonly host: string; readonly port: number }): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(address);
    const settle = (open: boolean): void => {
      socket.destroy();
      resolve(open);
    };
    socket.once('connect', () => settle(true));
    socket.once('error', () => settle(false));
  });
}
