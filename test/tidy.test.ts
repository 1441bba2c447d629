// The architecture as a test: what may import what, what a serving worker loads, how deep folders are, which names and which time are
// used, and that the docs say what the code says.

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { describe, expect, it } from 'vitest';
import { referenceFile, generate, provenFallbacks } from '../ops/docs.ts';
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
    /^(?:import|export)\s(?<type>type\s)?(?:[^'";]*?\sfrom\s+)?'(?<from>[^']+)'|\bimport\('(?<lazy>[^']+)'\)|^const .*= loadCommonJs\('(?<loaded>[^']+)'\)/gm,
  );
  return [...statements].map(({ groups }) => ({
    from: groups!['from'] ?? groups!['lazy'] ?? groups!['loaded']!,
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

describe('the rooms of appliance/', () => {
  /** What each room may import besides itself and the shared files of the top level, and its door: the files that others import. */
  const ROOMS: Readonly<Record<string, { readonly imports: readonly string[]; readonly door: readonly string[] }>> = {
    http: {
      imports: [],
      door: [
        'asset',
        'asset-key',
        'cache-control',
        'cache-status',
        'freshness',
        'headers',
        'multipart',
        'precondition',
        'range',
        'response-headers',
        'vary',
      ],
    },
    io: { imports: [], door: ['buffer-pool', 'byte-stream', 'nonblocking-io', 'shared-memory'] },
    store: {
      imports: ['io'],
      door: [
        'admission',
        'block-file',
        'bloom-filter',
        'cache',
        'demand-policy',
        'disk-volume',
        'known-volumes',
        'eviction-policy',
        'layout',
        'memory-tier',
        'receive-buffer',
        'scrub',
        'volume',
        'volume-budget',
      ],
    },
    link: { imports: ['http', 'io', 'store'], door: ['client', 'connection', 'messages', 'server'] },
    fetch: { imports: ['http', 'link', 'store'], door: ['inflight', 'lookup', 'miss', 'origin', 'reply'] },
    serve: {
      imports: ['fetch', 'http', 'io', 'link', 'store'],
      door: [
        'access-log',
        'block-reader',
        'bypass',
        'counters',
        'metadata-cache',
        'pipelining',
        'range-body',
        'resident-blocks',
        'serve',
      ],
    },
    fastpath: { imports: ['http', 'io', 'serve', 'store'], door: ['fast-path'] },
    fleet: {
      imports: ['fetch', 'link', 'store'],
      door: ['admin', 'appliance-status', 'catalog', 'filler', 'heartbeat', 'inventory', 'play-reports', 'state'],
    },
    tls: { imports: [], door: ['acceptor', 'certificate-store', 'http2', 'material'] },
  };
  /** Files of the top level that every room may import. */
  const SHARED = ['config', 'ipc', 'limits', 'metrics'];
  const imports = sources
    .filter((path) => path.startsWith('appliance/') && !isTest(path))
    .flatMap((path) =>
      importsOf(path)
        .filter(({ from }) => from.startsWith('.'))
        .map(({ from }) => ({ path, target: resolved(path, from) })),
    )
    .filter(({ target }) => target.startsWith('appliance/'));
  const partsOf = (path: string): { readonly room: string; readonly file: string } => {
    const [, ...parts] = path.replace(/\.ts$/, '').split('/');
    return parts.length === 1 ? { room: '.', file: parts[0]! } : { room: parts[0]!, file: parts[1]! };
  };

  it('are those of the table', () => {
    const rooms = new Set(imports.map(({ path }) => partsOf(path).room).filter((room) => room !== '.'));
    expect([...rooms].sort()).toEqual(Object.keys(ROOMS).sort());
  });

  it('import one another one way only, and the shared files of the top level', () => {
    const broken = imports.filter(({ path, target }) => {
      const [from, to] = [partsOf(path), partsOf(target)];
      if (from.room === '.' || from.room === to.room) return false;
      return to.room === '.' ? !SHARED.includes(to.file) : !ROOMS[from.room]!.imports.includes(to.room);
    });
    expect(broken.map(({ path, target }) => `${path} imports ${target}`)).toEqual([]);
  });

  it('are entered by their doors', () => {
    const broken = imports.filter(({ path, target }) => {
      const [from, to] = [partsOf(path), partsOf(target)];
      return to.room !== '.' && from.room !== to.room && !ROOMS[to.room]!.door.includes(to.file);
    });
    expect(broken.map(({ path, target }) => `${path} imports ${target}`)).toEqual([]);
  });

  it('have no door that nobody uses', () => {
    const used = new Set(
      imports
        .filter(({ path, target }) => partsOf(path).room !== partsOf(target).room)
        .map(({ target }) => `${partsOf(target).room}/${partsOf(target).file}`),
    );
    const doors = Object.entries(ROOMS).flatMap(([room, { door }]) => door.map((file) => `${room}/${file}`));
    expect(doors.filter((door) => !used.has(door))).toEqual([]);
  });
});

describe('the import graph', () => {
  it('has no cycle, type imports included', () => {
    const graph = new Map(
      sources
        .filter((path) => !isTest(path))
        .map((path) => [path, importsOf(path).map(({ from }) => (from.startsWith('.') ? resolved(path, from) : from))]),
    );
    // Files that import nothing that is left are taken away until none is left; what stays is in a cycle or leads to one.
    for (let before = -1; before !== graph.size;) {
      before = graph.size;
      for (const [path, targets] of graph) if (!targets.some((target) => graph.has(target))) graph.delete(path);
    }
    expect([...graph.keys()]).toEqual([]);
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

describe('names', () => {
  const code = sources.filter((path) => !isTest(path));
  const exportsOf = (path: string): readonly { readonly kind: string; readonly name: string }[] =>
    [
      ...read(path).matchAll(
        /^export (?:declare |abstract |async )*(?<kind>class|interface|type|const|function\*?|let) (?<name>\w+)/gm,
      ),
    ].map(({ groups }) => ({ kind: groups!['kind']!, name: groups!['name']! }));

  it('of exported types are unique within a component', () => {
    const owners = new Map<string, string[]>();
    for (const path of code)
      for (const { kind, name } of exportsOf(path))
        if (['class', 'interface', 'type'].includes(kind)) {
          const key = `${path.split('/')[0]} ${name}`;
          owners.set(key, [...(owners.get(key) ?? []), path]);
        }
    expect([...owners].filter(([, paths]) => paths.length > 1)).toEqual([]);
  });

  /** Private words that gave way to the field's; the glossary of ARCHITECTURE.md has those. */
  const RETIRED = new Set(
    `Known Asked Ask Told Look Locate Located Question Sealing isSealed Remembered Changes Landing Flight Terms Standing Book
    NewBlocks Turns Places room roomWithin pour steady Slab Shelf Piece Pieces family TlsDoor TlsKeeper Manner collectSeldom
    stayYoung optimiseEarly Footing Ground Scene Past Present Now Moment Live Recorded Contender lapsed Desk layOut Part Ending
    onStage Verdict Place Reading Tally Found Kept Outcome Scope nameOf forwarded heard
    hear stand warden story standsFor`.split(/\s+/),
  );

  it('are none of those that were retired', () => {
    const found = code.flatMap((path) =>
      exportsOf(path)
        .filter(({ name }) => RETIRED.has(name))
        .map(({ name }) => `${path} exports ${name}`),
    );
    expect(found).toEqual([]);
  });
});

describe('time', () => {
  it('comes from the clock alone', () => {
    const TIME = /\bDate\.now\b|\bperformance\.now\b|(?<![.\w])set(?:Timeout|Interval)\(|timers\/promises/;
    const found = sources
      .filter((path) => !isTest(path) && path !== 'runtime/clock.ts')
      .flatMap((path) =>
        read(path)
          .split('\n')
          .flatMap((line, at) => (TIME.test(line.replace(/\/\/.*|^\s*\*.*/, '')) ? [`${path}:${at + 1}`] : [])),
      );
    expect(found).toEqual([]);
  });
});

describe('the docs', () => {
  it('print the tables of the code', async () => {
    const written = readFileSync(referenceFile, 'utf8');
    expect(written, 'REFERENCE.md is out of date; run: npm run docs').toBe(await generate(written));
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
    // `new Fault('code', …)` and `new Fault(condition ? 'code' : 'code', …)`; rows of checks that build faults name the code as `code:`.
    const thrown = new Set(
      code.flatMap((path) =>
        [...read(path).matchAll(/new Fault\(\s*(?<code>[^,]+),/g)].flatMap(({ groups }) =>
          [...groups!['code']!.matchAll(/'(\w+)'/g)].map((match) => match[1]!),
        ),
      ),
    );
    expect(Object.keys(FAULTS).filter((name) => !thrown.has(name))).toEqual([]);
  });

  it('name no fallback that nothing counts', () => {
    const counted = code
      .filter((path) => path !== 'runtime/fallbacks.ts')
      .flatMap((path) => [...read(path).matchAll(/'larder_fallback_total', 1, \{ name: '(\w+)' \}|\['(\w+_\w+)'\]/g)])
      .map((match) => match[1] ?? match[2]);
    expect(Object.keys(FALLBACKS).filter((name) => !counted.includes(name))).toEqual([]);
  });

  it('name no fallback whose counter no test asserts', () => {
    const unproven = [...provenFallbacks()].filter(([, tests]) => tests.length === 0).map(([name]) => name);
    expect(unproven).toEqual([]);
  });
});
