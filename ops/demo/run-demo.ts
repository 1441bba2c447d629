// `larder demo`: starts the fleet, imports and plays the sample titles, plans and fills, then leaves the fleet to the page until
// Ctrl-C.

import { relative, join } from 'node:path';
import { Fault } from '../../protocol/faults.ts';
import { formatBytes, formatDuration } from '../../protocol/units.ts';
import { systemClock } from '../../runtime/clock.ts';
import { CLIENT_TABLE } from '../../runtime/command.ts';
import { packageRoot } from '../../runtime/paths.ts';
import { assertRunSucceeded } from '../follow-run.ts';
import { createProgress, SILENT_PROGRESS } from '../progress.ts';
import { summarizeRun } from '../run-table.ts';
import { paint, terminalStyle, type TerminalStyle } from '../terminal.ts';
import { startControlPort, type ControlAction, type ControlledAppliances } from './control-port.ts';
import type { DemoFleet } from './fleet.ts';
import { APPLIANCES } from './layout.ts';
import { fetchPlans, fillNow, importTitles, playBeforeFill, TITLES } from './scenario.ts';
import { withDemoFleet } from './with-demo-fleet.ts';

/** Slow enough to watch: at this rate the sample titles take a few seconds. */
const FILL_RATE = '40Mb/s';
const SUPERVISE_MS = 1_000;
const RESTARTS_MAX = 10;

export function runDemo(flags: { readonly port: number | null; readonly keep: boolean }): Promise<number> {
  return withDemoFleet({ port: flags.port, keep: flags.keep, fillRate: FILL_RATE, ports: 'usual' }, runWithFleet);
}

async function runWithFleet(fleet: DemoFleet): Promise<number> {
  const style = terminalStyle(process.stdout, process.env);
  print(`${paint(style, 'strong', 'Larder demo')}: a CDN on this machine\n`);
  await runScenario(fleet, style);
  print(`\nFill, at most ${FILL_RATE} per appliance\n`);
  const ended = await fillNow(fleet, createProgress(process.stdout));
  print(`\n${summarizeRun(ended)}`);
  assertRunSucceeded(ended);
  const control = await startControlPort(controlledAppliances(fleet), fleet.urls.steering);
  try {
    print(`\n${formatNextSteps(fleet, control.fragment, style)}`);
    return await superviseUntilStopped(fleet);
  } finally {
    await control.close();
  }
}

/** Everything before the fill, one line per step. */
async function runScenario(fleet: DemoFleet, style: TerminalStyle): Promise<void> {
  await runStep(style, 'Origin, fill, steering and three appliances run', async () => {
    await fleet.start();
    return [];
  });
  await runStep(style, `${formatList(TITLES)} are imported`, async () => {
    await importTitles(fleet, SILENT_PROGRESS);
    return ['from HLS and DASH'];
  });
  await runStep(style, 'Viewers have played some of each', async () => {
    const reports = await playBeforeFill(fleet);
    const segments = reports.reduce((sum, report) => sum + report.segments, 0);
    return [`${reports.length} plays`, `${segments} segments`];
  });
  await runStep(style, "Tonight's fill is planned", async () => {
    const plans = await fetchPlans(fleet);
    const renditions = plans.reduce((sum, plan) => sum + plan.add.length, 0);
    const bytes = plans.reduce((sum, plan) => sum + plan.addBytes, 0);
    return [`${renditions} renditions`, `${formatBytes(bytes)} for ${plans.length} appliances`];
  });
}

/**
 * Never resolves; Ctrl-C ends it from outside. An appliance that was killed stays down, because the page can start it again. A
 * service that ended is restarted, because the page cannot.
 */
async function superviseUntilStopped(fleet: DemoFleet): Promise<never> {
  const reported = new Set<number>();
  let restarts = 0;
  for (;;) {
    await systemClock.sleep(SUPERVISE_MS);
    for (const child of fleet.processes.filter((candidate) => candidate.crashed)) {
      const { name } = child.spec;
      const group = child.groups.at(-1)!;
      if (reported.has(group)) continue;
      reported.add(group);
      if (APPLIANCES.some((row) => row.id === name)) {
        print(`${name} has ended; the page can start it again.`);
        continue;
      }
      restarts += 1;
      if (restarts > RESTARTS_MAX) throw new Fault('internal', `${name} keeps ending:\n${child.logTail()}`);
      print(`${name} has ended and is started again; the end of its log:\n${child.logTail()}`);
      await child.start();
    }
  }
}

function controlledAppliances(fleet: DemoFleet): ControlledAppliances {
  const actions: Readonly<Record<ControlAction, (id: string) => Promise<void> | void>> = {
    stop: (id) => fleet.process(id).kill(),
    freeze: (id) => fleet.process(id).freeze(),
    thaw: (id) => fleet.process(id).thaw(),
    start: (id) => fleet.process(id).start(),
  };
  return {
    ids: APPLIANCES.map((row) => row.id),
    site: (id) => APPLIANCES.find((row) => row.id === id)!.site,
    state: (id) => fleet.process(id).state,
    apply: async (id, action) => actions[action](id),
  };
}

function formatNextSteps(fleet: DemoFleet, fragment: string, style: TerminalStyle): string {
  const larder = `node ${relative(process.cwd(), join(packageRoot, 'dist', 'larder.js'))}`;
  const settings = [
    `export LARDER_HOME=${fleet.directory}`,
    ...(fleet.urls.steering === CLIENT_TABLE.steering.fallback
      ? []
      : [`export LARDER_STEERING=${fleet.urls.steering}`]),
    ...(fleet.urls.fill === CLIENT_TABLE.fill.fallback ? [] : [`export LARDER_FILL=${fleet.urls.fill}`]),
  ];
  return [
    'Open this page to play a title, and to stop appliances while it plays:',
    `  ${paint(style, 'good', `${fleet.urls.steering}/ui/#${fragment}`)}`,
    '',
    'Or try, in another terminal:',
    ...settings.map((line) => `  ${line}`),
    `  ${larder} steer explain --client 127.2.0.9 --title harbor`,
    `  ${larder} appliance ls`,
    '',
    paint(style, 'dim', 'Ctrl-C ends everything and leaves nothing behind.'),
  ].join('\n');
}

/** Prints the step with the details that `work` returns, once it is done. */
async function runStep(style: TerminalStyle, title: string, work: () => Promise<string[]>): Promise<void> {
  const startedMs = systemClock.monotonic();
  const details = [...(await work()), formatDuration(systemClock.monotonic() - startedMs)];
  print(` ${paint(style, 'good', '✓')} ${title} ${paint(style, 'dim', `(${details.join(', ')})`)}`);
}

const print = (text: string): void => void process.stdout.write(`${text}\n`);

const formatList = (words: readonly string[]): string => `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`;
