// `larder demo`: start the fleet, import, play some, plan, fill with a progress bar, then hand over to the page until
// Ctrl-C.

import { relative, join } from 'node:path';
import { Fault } from '../../protocol/faults.ts';
import { formatDuration } from '../../protocol/units.ts';
import { packageRoot } from '../../runtime/paths.ts';
import { createDemoControl, type Action, type Controlled } from './control.ts';
import type { DemoFleet } from './fleet.ts';
import { APPLIANCES } from './layout.ts';
import { onStage } from './with-demo-fleet.ts';
import { fillNow, importTitles, playSome, plansOf, TITLES } from './scenario.ts';
import { assertRunWell, runSummary } from '../follow-run.ts';
import { formatPlans } from '../verbs/fill-plan.ts';
import { createProgress } from '../progress.ts';
import { formatFacts } from '../table.ts';
import { lookOf, paint, type Look } from '../terminal.ts';

/** Slow enough to be watched: the sample titles then take a few seconds. */
const FILL_RATE = '40Mb/s';
const WATCH_MS = 1_000;
const RESTARTS_MAX = 10;

export function runDemo(flags: { readonly port: number | null; readonly keep: boolean }): Promise<number> {
  return onStage({ port: flags.port, keep: flags.keep, fillRate: FILL_RATE, ports: 'usual' }, show);
}

async function show(fleet: DemoFleet): Promise<number> {
  const look = lookOf(process.stdout, process.env);
  const print = (text: string): void => void process.stdout.write(`${text}\n`);
  print(`${paint(look, 'strong', 'Larder demo')}: a CDN on this machine\n`);
  await step(look, 'Origin, fill, steering and three appliances run', () => fleet.start());
  await step(look, `${list(TITLES)} are imported`, async () => {
    await importTitles(fleet, SILENT);
    return 'from HLS and DASH';
  });
  await step(look, 'Somebody has watched some of each', async () => {
    const reports = await playSome(fleet);
    const segments = reports.reduce((sum, report) => sum + report.segments, 0);
    return `${reports.length} plays, ${segments} segments`;
  });
  print(`\n${paint(look, 'dim', "Tonight's plan")}\n`);
  print(formatPlans(await plansOf(fleet), look).split('\n\n')[0]!);
  print(`\n${paint(look, 'dim', `The fill, at most ${FILL_RATE} for each appliance`)}\n`);
  const ended = await fillNow(fleet, createProgress(process.stdout));
  print(`\n${runSummary(ended)}`);
  assertRunWell(ended);
  const control = await createDemoControl(controlledBy(fleet), fleet.urls.steering);
  try {
    print(`\n${signpost(fleet, control.fragment, look)}`);
    return await watch(fleet);
  } finally {
    await control.close();
  }
}

/**
 * Until Ctrl-C, which comes from outside. An appliance that somebody kills by hand stays down, as in the story that the
 * page tells; a service is started again, because no button could.
 */
async function watch(fleet: DemoFleet): Promise<never> {
  const told = new Set<number>();
  let restarts = 0;
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, WATCH_MS));
    for (const child of fleet.processes.filter((candidate) => candidate.crashed)) {
      const { name } = child.spec;
      const group = child.groups.at(-1)!;
      if (told.has(group)) continue;
      told.add(group);
      if (APPLIANCES.some((row) => row.id === name)) {
        process.stdout.write(`${name} has ended; the page can start it again.\n`);
        continue;
      }
      restarts += 1;
      if (restarts > RESTARTS_MAX) throw new Fault('internal', `${name} keeps ending:\n${child.logTail()}`);
      process.stdout.write(`${name} has ended and is started again; the end of its log:\n${child.logTail()}\n`);
      await child.start();
    }
  }
}

function controlledBy(fleet: DemoFleet): Controlled {
  const acts: Readonly<Record<Action, (id: string) => Promise<void> | void>> = {
    stop: (id) => fleet.process(id).kill(),
    freeze: (id) => fleet.process(id).freeze(),
    thaw: (id) => fleet.process(id).thaw(),
    start: (id) => fleet.process(id).start(),
  };
  return {
    ids: APPLIANCES.map((row) => row.id),
    site: (id) => APPLIANCES.find((row) => row.id === id)!.site,
    state: (id) => fleet.process(id).state,
    act: async (id, action) => acts[action](id),
  };
}

function signpost(fleet: DemoFleet, fragment: string, look: Look): string {
  const larder = `node ${relative(process.cwd(), join(packageRoot, 'dist', 'larder.js'))}`;
  const settings = [
    `export LARDER_HOME=${fleet.directory}`,
    `export LARDER_STEERING=${fleet.urls.steering}`,
    `export LARDER_FILL=${fleet.urls.fill}`,
  ];
  return [
    formatFacts([['Watch', '']], look).trimEnd(),
    `  ${paint(look, 'good', `${fleet.urls.steering}/ui/#${fragment}`)}`,
    '',
    paint(look, 'dim', 'Ask, in another terminal'),
    ...settings.map((line) => `  ${line}`),
    `  ${larder} steer explain --client 127.2.0.9 --title harbor`,
    `  ${larder} appliance ls`,
    '',
    paint(look, 'dim', 'Ctrl-C ends everything and leaves nothing behind.'),
  ].join('\n');
}

const SILENT = { show: () => undefined, stop: () => undefined };

async function step(look: Look, what: string, work: () => Promise<string | void>): Promise<void> {
  const startedMs = performance.now();
  const detail = await work();
  const took = formatDuration(performance.now() - startedMs);
  process.stdout.write(
    ` ${paint(look, 'good', '✓')} ${what} ${paint(look, 'dim', [detail, took].filter(Boolean).join(', '))}\n`,
  );
}

const list = (words: readonly string[]): string => `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`;
