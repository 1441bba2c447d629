// Generates the tables of REFERENCE.md from the tables in the code: faults, settings, metrics, fallbacks with the tests that
// cover them, and routes. `npm run docs` runs it; test/tidy fails while the file differs from the code.
//
// Components may not import one another, so each is loaded by file name, and every component exports the same tables.

import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { FAULTS } from '../protocol/faults.ts';
import { envName, flagName, type Table } from '../runtime/config.ts';
import { FALLBACKS } from '../runtime/fallbacks.ts';
import { silentLog } from '../runtime/log.ts';
import type { MetricTable } from '../runtime/metrics.ts';
import { packageRoot, siblingModule } from '../runtime/paths.ts';
import { createService, type Route, type Service } from '../runtime/service.ts';

const COMPONENTS = ['appliance', 'steering', 'fill'] as const;
type Component = (typeof COMPONENTS)[number];
/** Folders that have a `test/` folder. */
const TESTED_FOLDERS = [...COMPONENTS, 'bench', 'ops', 'protocol', 'runtime'] as const;

interface ComponentModules {
  readonly config: Readonly<Record<string, unknown>>;
  readonly metrics: { readonly METRICS: MetricTable };
}

/** Regenerates every generated section in the text of REFERENCE.md. Throws if a section has no marker. */
export async function generate(text: string): Promise<string> {
  const sections: Record<string, string> = {
    faults: faults(),
    fallbacks: fallbacks(),
    metrics: await metrics(),
    routes: await routes(),
  };
  for (const component of COMPONENTS) sections[`settings of ${component}`] = await settings(component);
  return Object.entries(sections).reduce((before, [name, table]) => {
    const opening = `<!-- generated: ${name} -->\n<!-- prettier-ignore-start -->\n`;
    const closing = `<!-- prettier-ignore-end -->`;
    const start = before.indexOf(opening);
    const end = before.indexOf(closing, start);
    if (start === -1 || end === -1) throw new Error(`REFERENCE.md has no section "${name}"`);
    return `${before.slice(0, start + opening.length)}\n${table}\n\n${before.slice(end)}`;
  }, text);
}

function faults(): string {
  return markdown(
    ['fault', 'status', 'blame', 'retry', 'what a person reads'],
    Object.entries(FAULTS).map(([code, spec]) => [code, String(spec.status), spec.blame, spec.retry, spec.help]),
  );
}

async function settings(component: Component): Promise<string> {
  const { config } = await loadModules(component);
  const table = Object.entries(config).find(([name]) => name.endsWith('_TABLE'))![1] as Table;
  return markdown(
    ['flag', 'environment', 'default', 'what'],
    Object.entries(table).map(([key, spec]) => {
      const shape = spec.flag ? '' : ` ${spec.placeholder}${spec.list ? ' …' : ''}`;
      const fallback = spec.shown ?? spec.fallback;
      const nothing = spec.optional || spec.list ? '' : '**required**';
      return [
        `\`${flagName(key)}${shape}\``,
        `\`${envName(key)}\``,
        fallback === undefined ? nothing : `\`${withoutHome(fallback)}\``,
        spec.doc,
      ];
    }),
  );
}

async function metrics(): Promise<string> {
  const rows = new Map<string, string[]>();
  for (const component of COMPONENTS) {
    const { METRICS } = (await loadModules(component)).metrics;
    for (const [name, spec] of Object.entries(METRICS)) {
      const existing = rows.get(name);
      if (existing === undefined)
        rows.set(name, [`\`${name}\``, spec.type, (spec.labels ?? []).join(', '), component, spec.help]);
      else existing[3] += `, ${component}`;
    }
  }
  return markdown(['metric', 'type', 'labels', 'of', 'what'], [...rows.values()]);
}

function fallbacks(): string {
  const proofs = provenFallbacks();
  return markdown(
    ['fallback', 'what is done', 'proven by'],
    Object.entries(FALLBACKS).map(([name, what]) => [`\`${name}\``, what, proofs.get(name)!.join('<br>')]),
  );
}

/**
 * What a test reads a fallback's counter by: the metric itself, or a function of a harness that is named after it. The fallback's name stands in
 * the same statement.
 */
const COUNTER_READ = /larder_fallback_total|fallbackCount|expectFallback/;

/** The test files that read the counter of each fallback. */
export function provenFallbacks(): Map<string, string[]> {
  const tests = ['test', ...TESTED_FOLDERS]
    .flatMap((folder) =>
      readdirSync(join(packageRoot, folder), { recursive: true, encoding: 'utf8' }).map((file) => join(folder, file)),
    )
    .filter((file) => file.endsWith('.test.ts'))
    .sort()
    .map((file) => ({
      file,
      counters: readFileSync(join(packageRoot, file), 'utf8')
        .split(/;\n/)
        .filter((statement) => COUNTER_READ.test(statement)),
    }));
  return new Map(
    Object.keys(FALLBACKS).map((name) => {
      const named = new RegExp(`['"]${name}['"]`);
      const proofs = tests.filter(({ counters }) => counters.some((statement) => named.test(statement)));
      return [name, proofs.map(({ file }) => `\`${file}\``)];
    }),
  );
}

async function routes(): Promise<string> {
  const rows: string[][] = [];
  for (const { name, service } of await createServices()) {
    const response = await service.app.inject({ url: '/openapi.json' });
    const { paths } = response.json<{ paths: Record<string, Record<string, Operation>> }>();
    for (const [path, operations] of Object.entries(paths)) {
      for (const [method, operation] of Object.entries(operations))
        rows.push([
          name,
          `\`${method.toUpperCase()} ${path}\``,
          operation['x-larder-roles']?.join(', ') ?? 'anybody',
          operation.summary,
        ]);
    }
    await service.close();
  }
  return markdown(['service', 'route', 'who', 'what'], rows);
}

interface Operation {
  readonly summary: string;
  readonly 'x-larder-roles'?: readonly string[];
}

/** Every service with its routes. None listens, and no route is called. */
async function createServices(): Promise<readonly { readonly name: string; readonly service: Service }[]> {
  const admin = await load<{ createAdmin(deps: unknown): Service }>('appliance', 'fleet/admin');
  const steering = await load<{ createSteeringService(deps: unknown): Service }>('steering', 'service');
  const fill = await load<{ routes(deps: unknown): Route[] }>('fill', 'routes');
  const chassis = { log: silentLog, fleetKey: Buffer.alloc(0), trustProxy: [], ui: new Map<string, never>() };
  const expose = (): Promise<never> => Promise.reject(new Error('nothing is served here'));
  return [
    { name: 'appliance, admin', service: admin.createAdmin({ ...chassis, expose }) },
    { name: 'steering', service: steering.createSteeringService(chassis) },
    { name: 'fill', service: createService({ ...chassis, name: 'fill', expose, routes: fill.routes({}) }) },
  ];
}

async function loadModules(component: Component): Promise<ComponentModules> {
  return { config: await load(component, 'config'), metrics: await load(component, 'metrics') };
}

async function load<T>(component: Component, file: string): Promise<T> {
  const path = siblingModule(join(import.meta.dirname, '..', component), file);
  return (await import(pathToFileURL(path).href)) as T;
}

/** Replaces the home directory in a default, so that the docs do not depend on the machine. */
const withoutHome = (path: string): string =>
  path.replace(process.env['LARDER_HOME'] ?? join(homedir(), '.larder'), '~/.larder');

function markdown(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

export const referenceFile = join(packageRoot, 'REFERENCE.md');

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  writeFileSync(referenceFile, await generate(readFileSync(referenceFile, 'utf8')));
}
