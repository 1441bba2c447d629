// The architecture as a test: what may import what, what a serving worker loads, how deep folders are, and that the docs say
// what the code says.

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { describe, expect, it } from 'vitest';
import { architectureFile, generate, provenFallbacks } from '../ops/docs.ts';
import { FAULTS } from '../protocol/faults.ts';
import { FALLBACKS } from '../runtime/fallbacks.ts';
import { packageRoot } from '../runtime/paths.ts';

const FOLDERS_MAX = 2;

/** What git knows or would add: the tree as it would be committed. */
const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
  cwd: packageRoot,
  encoding: 'utf8',
})
  .split('\n')
  .filter((path) => path !== '' && existsSync(join(packageRoot, path)));

const isMedia = (path: string): boolean => path.startsWith('ops/media/titles/');
const isTest = (path: string): boolean => path.startsWith('test/') || path.includes('/test/');
const sources = files.filter((path) => path.endsWith('.ts') && !isMedia(path));
/** A room's test/ is not counted. */
const foldersOf = (path: string): number => path.replace('/test/', '/').split('/').length - 1;
const read = (path: string): string => readFileSync(join(packageRoot, path), 'utf8');

interface Imported {
  readonly from: string;
  readonly typeOnly: boolean;
}

/** Static and dynamic imports with a literal name. */
function importsOf(path: string): Imported[] {
  const statements = read(path).matchAll(
    /^(?:import|export)\s(?<type>type\s)?(?:[^'";]*?\sfrom\s+)?'(?<from>[^']+)'|\bimport\('(?<lazy>[^']+)'\)/gm,
  );
  return [...statements].map(({ groups }) => ({
    from: groups!['from'] ?? groups!['lazy']!,
    typeOnly: groups!['type'] !== undefined,
  }));
}

const resolved = (path: string, from: string): string => relative('.', join(dirname(path), from));

describe('the import matrix', () => {
  const COMPONENTS = ['appliance', 'steering', 'fill', 'ops'];
  const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
    protocol: ['protocol'],
    runtime: ['protocol', 'runtime'],
    ...Object.fromEntries(COMPONENTS.map((name) => [name, ['protocol', 'runtime', name]])),
    bench: ['protocol', 'runtime', 'bench', ...COMPONENTS],
    test: ['protocol', 'runtime', 'bench', 'test', ...COMPONENTS],
    '.': ['protocol', 'runtime', 'bench', ...COMPONENTS],
  };
  /** Folder of the tree, or `.` for a file at its root. */
  const roomOf = (path: string): string => (path.includes('/') ? path.split('/')[0]! : '.');

  it('knows every folder that has sources', () => {
    expect([...new Set(sources.map(roomOf))].filter((room) => !(room in MAY_IMPORT))).toEqual([]);
  });

  it('is kept: components talk over HTTP, never by import', () => {
    const broken = sources.flatMap((path) =>
      importsOf(path)
        .filter(({ from }) => from.startsWith('.'))
        .map(({ from }) => resolved(path, from))
        // Tests of a component may ask which tools this machine has.
        .filter((target) => !(isTest(path) && target === 'test/tools.ts'))
        .filter((target) => !MAY_IMPORT[roomOf(path)]!.includes(roomOf(target)))
        .map((target) => `${path} imports ${target}`),
    );
    expect(broken).toEqual([]);
  });

  it('leaves protocol/ with zod alone', () => {
    const packages = sources
      .filter((path) => path.startsWith('protocol/') && !isTest(path))
      .flatMap((path) => importsOf(path).map(({ from }) => from))
      .filter((from) => !from.startsWith('.'));
    expect(new Set(packages)).toEqual(new Set(['zod']));
  });
});

describe('what a serving process loads', () => {
  /** Packages in the import graph of a module; types are erased and load nothing. */
  function packagesOf(entry: string): Set<string> {
    const seen = new Set([entry]);
    const packages = new Set<string>();
    for (const path of seen) {
      for (const { from, typeOnly } of importsOf(path)) {
        if (typeOnly) continue;
        if (from.startsWith('.')) seen.add(resolved(path, from));
        else packages.add(from);
      }
    }
    return packages;
  }

  it('is neither commander nor fastify in a worker, and undici only when it fetches', () => {
    const packages = packagesOf('appliance/worker.ts');
    expect([...packages]).toContain('koffi');
    expect([...packages]).not.toContain('undici');
    expect([...packages]).not.toContain('commander');
    expect([...packages]).not.toContain('fastify');
  });

  it('is found where it is: the storekeeper has an admin listener', () => {
    expect([...packagesOf('appliance/storekeeper.ts')]).toContain('fastify');
  });
});

describe('files and folders', () => {
  it('say in their first lines what they are for', () => {
    const mute = sources.filter((path) => !isTest(path) && !/^(#!.*\n)?\/\/ /.test(read(path)));
    expect(mute).toEqual([]);
  });

  it(`lie at most ${FOLDERS_MAX} folders deep, sample media apart`, () => {
    const deep = files.filter((path) => !isMedia(path) && foldersOf(path) > FOLDERS_MAX);
    expect(deep).toEqual([]);
  });

  it('have no helpers, utils or common, and no barrels', () => {
    const vague = files.filter((path) => /(^|\/)(utils?|helpers?|common|index\.ts)(\/|\.|$)/.test(path));
    expect(vague).toEqual([]);
  });
});

describe('the docs', () => {
  it('print the tables of the code', async () => {
    const written = readFileSync(architectureFile, 'utf8');
    expect(written, 'ARCHITECTURE.md is out of date; run: npm run docs').toBe(await generate(written));
  });

  it('give a reason for every dependency, and only for those', () => {
    const { dependencies, devDependencies } = JSON.parse(read('package.json')) as Record<string, object>;
    const named = [...read('decisions/dependencies.md').matchAll(/^\| `([^`]+)`/gm)].map((match) => match[1]!);
    expect(named.sort()).toEqual(Object.keys({ ...dependencies, ...devDependencies }).sort());
  });

  it('list every decision', () => {
    const index = read('decisions/README.md');
    const pages = files.filter((path) => path.startsWith('decisions/') && path !== 'decisions/README.md');
    expect(pages.filter((path) => !index.includes(`(${path.slice('decisions/'.length)})`))).toEqual([]);
  });

  it('link only to what is there', () => {
    const dangling = files
      .filter((path) => path.endsWith('.md') && !isMedia(path))
      .flatMap((path) =>
        [...read(path).matchAll(/\]\((?!https?:|#|mailto:)([^)#\s]+)/g)]
          .map((match) => join(dirname(path), match[1]!))
          .filter((target) => !existsSync(join(packageRoot, target)))
          .map((target) => `${path} → ${target}`),
      );
    expect(dangling).toEqual([]);
  });
});

describe('tables', () => {
  const code = sources.filter((path) => !isTest(path));

  it('name no fault that nothing throws', () => {
    const text = code
      .filter((path) => path !== 'protocol/faults.ts')
      .map(read)
      .join('\n');
    expect(Object.keys(FAULTS).filter((name) => !text.includes(`'${name}'`))).toEqual([]);
  });

  it('name no fallback that nothing takes', () => {
    const text = code
      .filter((path) => path !== 'runtime/fallbacks.ts')
      .map(read)
      .join('\n');
    expect(Object.keys(FALLBACKS).filter((name) => !text.includes(`'${name}'`))).toEqual([]);
  });

  it('name no fallback that no test proves', () => {
    const unproven = [...provenFallbacks()].filter(([, tests]) => tests.length === 0).map(([name]) => name);
    expect(unproven).toEqual([]);
  });
});
