// Request targets: an asset under its own name or another spelling of it, and what is nothing, a folder, or a trick.
// `/cN` stands for a folder that nobody has asked before.

import type { Asset } from './assets.ts';
import type { Chance } from './random.ts';

/** Sure to name the asset, for every reader of RFC 3986 alike. */
export function assetTarget(chance: Chance, { name }: Asset): string {
  const path = `/cN/${escaped(name)}`;
  return chance.weighted<() => string>([
    [86, () => path],
    [3, () => `${path}?${chance.of(['', 'v=1', 'a=b&c', 'CMCD=bl%3D100', 'v=1&CMCD=br%3D5', '?', 'x=../y', 'x=%zz'])}`],
    [
      3,
      () => `${chance.of(['http://larder.test', 'HTTP://other.test:81', 'https://a.b', 'http://[::1]:8080'])}${path}`,
    ],
    [3, () => overEscaped(chance, path)],
    [2, () => path.replaceAll(/%[0-9A-F]{2}/g, (hex) => hex.toLowerCase())],
  ])();
}

/** May name the asset, or nothing, or be refused. */
export function strayTarget(chance: Chance, { name }: Asset): string {
  const file = escaped(name);
  return chance.weighted<() => string>([
    [15, () => `/cN/${chance.of(['none', 'none.mp4', `${file}x`, `${file}/`, 'bare', 'bare/', 'home', 'home/', ''])}`],
    [10, () => `/cN/${chance.of(['./', '../cN/', 'x/../', 'home/../', './././', '../../../', 'home/./../'])}${file}`],
    [8, () => `/cN/${chance.of(['%2e/', '%2E%2e/cN/', 'x/%2e%2E/', '%2e%2e%2f', 'home%2f..%2f', '..%5c'])}${file}`],
    [6, () => `/cN${chance.of(['//', '///', '/home/..//', '%2f', '/%2F'])}${file}`],
    [6, () => `${chance.of(['/', ''])}/cN/${file}`],
    [
      8,
      () => `/cN/${file}${chance.of(['#', '#x', '?x#y', '%23', '%3fx', '%', '%4', '%zz', '%00', '%0a', '%7f', '%ff'])}`,
    ],
    [6, () => `/cN/${file}${chance.of(['\\', '\\..', ';v=1', '|', '"', '<', '^', '`', '{}', "'", '~', '*', '!'])}`],
    [5, () => `/cN/${chance.of(['\xe4', '\xff', '\x01', '\x7f', '\t', '\0', '\xc3\xa4'])}${file}`],
    [3, () => `/cN/${chance.of([' ', 'a b', ' x'])}${file}`],
    [5, () => chance.of(['*', 'x', `cN/${file}`, '?x', '#', '.', '..', '%2f', 'larder.test:80', 'http:', 'http:/'])],
    [
      5,
      () =>
        `${chance.of(['http://', 'http://larder.test', 'ftp://larder.test/', 'http:///', 'http://a b/', 'http://a@b/', '//'])}${file}`,
    ],
    [3, () => `/cN/${file}?${'x'.repeat(chance.of([1_000, 1_500, 7_000, 9_000, 20_000]))}`],
    [
      2,
      () =>
        chance.of(['http://larder.test', 'http://larder.test?x', 'https://larder.test#', 'http://?x', 'http://x:y/']),
    ],
  ])();
}

const escaped = (name: string): string => name.split('/').map(encodeURIComponent).join('/');

/** RFC 3986 6.2.2.2: what need not be escaped may be, and means the same. */
function overEscaped(chance: Chance, path: string): string {
  const start = path.lastIndexOf('/') + 1;
  return (
    path.slice(0, start) +
    path
      .slice(start)
      .replaceAll(/%..|[A-Za-z0-9._~-]/g, (piece) =>
        piece.length > 1 || chance.percent(60) ? piece : `%${piece.charCodeAt(0).toString(16)}`,
      )
  );
}
