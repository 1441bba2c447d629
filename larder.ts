#!/usr/bin/env node
// The entry point: maps the verb of the command line to its module and exits with its status. Only the module of that verb is loaded.

import { Command, CommanderError } from 'commander';
import { Fault } from './protocol/faults.ts';
import type { Verb } from './runtime/command.ts';
import { packageVersion } from './runtime/paths.ts';
import { describeError, errorBody, EXIT, exitCodeOf } from './runtime/process.ts';

interface VerbEntry {
  readonly words: readonly [string] | readonly [string, string];
  readonly summary: string;
  readonly load: () => Promise<{ readonly verb: Verb }>;
}

const VERBS: readonly VerbEntry[] = [
  {
    words: ['demo'],
    summary: 'the whole CDN on this machine, with a page that plays',
    load: () => import('./ops/verbs/demo.ts'),
  },
  {
    words: ['origin'],
    summary: 'a plain HTTP origin, for the demo and for tests',
    load: () => import('./ops/verbs/origin.ts'),
  },
  {
    words: ['appliance', 'run'],
    summary: 'run an appliance: a byte-range cache for an origin',
    load: () => import('./appliance/run.ts'),
  },
  {
    words: ['appliance', 'check'],
    summary: 'turn-up checks, each failure with its remedy',
    load: () => import('./appliance/check.ts'),
  },
  { words: ['appliance', 'ls'], summary: 'list the fleet', load: () => import('./ops/verbs/appliance-ls.ts') },
  {
    words: ['appliance', 'show'],
    summary: 'one appliance in full',
    load: () => import('./ops/verbs/appliance-show.ts'),
  },
  {
    words: ['appliance', 'drain'],
    summary: 'send an appliance no new plays',
    load: () => import('./ops/verbs/appliance-drain.ts'),
  },
  {
    words: ['appliance', 'resume'],
    summary: 'send it plays again',
    load: () => import('./ops/verbs/appliance-resume.ts'),
  },
  { words: ['steering', 'run'], summary: 'run the steering service', load: () => import('./steering/run.ts') },
  {
    words: ['steer', 'explain'],
    summary: 'why a client is sent where it is sent',
    load: () => import('./ops/verbs/steer-explain.ts'),
  },
  {
    words: ['catalog', 'import'],
    summary: 'import a title from its HLS or DASH manifest',
    load: () => import('./ops/verbs/catalog-import.ts'),
  },
  { words: ['catalog', 'ls'], summary: 'list titles', load: () => import('./ops/verbs/catalog-ls.ts') },
  {
    words: ['catalog', 'show'],
    summary: 'one title with its renditions',
    load: () => import('./ops/verbs/catalog-show.ts'),
  },
  { words: ['fill', 'serve'], summary: 'run the fill service', load: () => import('./fill/serve.ts') },
  {
    words: ['fill', 'plan'],
    summary: 'what a fill would bring in and take out',
    load: () => import('./ops/verbs/fill-plan.ts'),
  },
  {
    words: ['fill', 'run'],
    summary: 'fill now, or when the window opens',
    load: () => import('./ops/verbs/fill-run.ts'),
  },
  { words: ['fill', 'status'], summary: 'runs and how far they are', load: () => import('./ops/verbs/fill-status.ts') },
  { words: ['fill', 'pin'], summary: 'keep a title on every site', load: () => import('./ops/verbs/fill-pin.ts') },
  { words: ['fill', 'unpin'], summary: 'let popularity decide again', load: () => import('./ops/verbs/fill-unpin.ts') },
  { words: ['bench'], summary: 'measure Larder beside its peers', load: () => import('./bench/bench-verb.ts') },
  {
    words: ['keys', 'issue'],
    summary: 'print a token for an appliance or an operator',
    load: () => import('./ops/verbs/keys-issue.ts'),
  },
];

const NOUNS: Readonly<Record<string, string>> = {
  appliance: 'boxes that store and serve bytes',
  steering: 'the service that ranks appliances for a play',
  steer: 'ask steering',
  catalog: 'titles, renditions, assets',
  fill: 'copies made before demand',
  keys: 'tokens of the control plane',
};

process.exitCode = await main(process.argv.slice(2));

async function main(args: readonly string[]): Promise<number> {
  try {
    const program = await buildProgram(args);
    await program.parseAsync([...args], { from: 'user' });
    return Number(process.exitCode ?? EXIT.done);
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return EXIT.done;
      // Commander has printed the message for people already.
      printErrorJson(args, usageFault(error));
      return EXIT.usage;
    }
    process.stderr.write(`${describeError(error)}\n`);
    printErrorJson(args, error);
    return exitCodeOf(error);
  }
}

/** Prints the error as JSON on stdout if JSON was requested. A verb that fails has printed nothing there. */
function printErrorJson(args: readonly string[], error: unknown): void {
  // Checked here, because a command line that cannot be parsed has no values.
  if (args.includes('--json') || process.env['LARDER_JSON'] === 'true')
    process.stdout.write(`${JSON.stringify(errorBody(error), null, 2)}\n`);
}

function usageFault({ code, message }: CommanderError): Fault {
  return new Fault('config_invalid', code === 'commander.help' ? 'no verb is given' : message.replace(/^error: /, ''));
}

/** Builds the tree of all verbs for help, with flags and action only for the verb of the command line. */
async function buildProgram(args: readonly string[]): Promise<Command> {
  const program = new Command('larder')
    .description('An edge CDN in a box.')
    .version(packageVersion)
    .exitOverride()
    .showHelpAfterError('(larder --help lists the verbs)');
  const nouns = new Map<string, Command>();
  for (const entry of VERBS) {
    const [first, second] = entry.words;
    let parent = program;
    if (second !== undefined) {
      parent = nouns.get(first) ?? program.command(first).description(NOUNS[first]!).exitOverride();
      nouns.set(first, parent);
    }
    const command = parent
      .command(second ?? first)
      .description(entry.summary)
      .exitOverride()
      .showHelpAfterError();
    if (entry.words.every((word, at) => args[at] === word)) (await entry.load()).verb.build(command);
    else command.allowUnknownOption().allowExcessArguments();
  }
  return program;
}
