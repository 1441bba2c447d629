// Request targets: an asset under its canonical name or another spelling, and targets that name nothing, a directory, or try to
// escape the root. `/cN` stands for a directory that has not been requested before.

import type { Asset } from './assets.ts';
import type { SeededRandom } from './random.ts';

/** A target that names the asset for every parser of RFC 3986. */
export function assetTarget(random: SeededRandom, { name }: Asset): string {
  const path = `/cN/${escaped(name)}`;
  return random.weighted<() => string>([
    [86, () => path],
    [
      3,
      () => `${path}?${random.pick(['', 'v=1', 'a=b&c', 'CMCD=bl%3D100', 'v=1&CMCD=br%3D5', '?', 'x=../y', 'x=%zz'])}`,
    ],
    [
      3,
      () => `${random.pick(['http://larder.test', 'HTTP://other.test:81', 'https://a.b', 'http://[::1]:8080'])}${path}`,
    ],
    [3, () => overEscaped(random, path)],
    [2, () => path.replaceAll(/%[0-9A-F]{2}/g, (hex) => hex.toLowerCase())],
  ])();
}

/** A target that may name the asset, name nothing, or be refused. */
export function unusualTarget(random: SeededRandom, { name }: Asset): string {
  const file = escaped(name);
  return random.weighted<() => string>([
    [
      15,
      () => `/cN/${random.pick(['none', 'none.mp4', `${file}x`, `${file}/`, 'bare', 'bare/', 'home', 'home/', ''])}`,
    ],
    [10, () => `/cN/${random.pick(['./', '../cN/', 'x/../', 'home/../', './././', '../../../', 'home/./../'])}${file}`],
    [8, () => `/cN/${random.pick(['%2e/', '%2E%2e/cN/', 'x/%2e%2E/', '%2e%2e%2f', 'home%2f..%2f', '..%5c'])}${file}`],
    [6, () => `/cN${random.pick(['//', '///', '/home/..//', '%2f', '/%2F'])}${file}`],
    [6, () => `${random.pick(['/', ''])}/cN/${file}`],
    [
      8,
      () =>
        `/cN/${file}${random.pick(['#', '#x', '?x#y', '%23', '%3fx', '%', '%4', '%zz', '%00', '%0a', '%7f', '%ff'])}`,
    ],
    [6, () => `/cN/${file}${random.pick(['\\', '\\..', ';v=1', '|', '"', '<', '^', '`', '{}', "'", '~', '*', '!'])}`],
    [5, () => `/cN/${random.pick(['\xe4', '\xff', '\x01', '\x7f', '\t', '\0', '\xc3\xa4'])}${file}`],
    [3, () => `/cN/${random.pick([' ', 'a b', ' x'])}${file}`],
    [5, () => random.pick(['*', 'x', `cN/${file}`, '?x', '#', '.', '..', '%2f', 'larder.test:80', 'http:', 'http:/'])],
    [
      5,
      () =>
        `${random.pick(['http://', 'http://larder.test', 'ftp://larder.test/', 'http:///', 'http://a b/', 'http://a@b/', '//'])}${file}`,
    ],
    [3, () => `/cN/${file}?${'x'.repeat(random.pick([1_000, 1_500, 7_000, 9_000, 20_000]))}`],
    [
      2,
      () =>
        random.pick(['http://larder.test', 'http://larder.test?x', 'https://larder.test#', 'http://?x', 'http://x:y/']),
    ],
  ])();
}

const escaped = (name: string): string => name.split('/').map(encodeURIComponent).join('/');

/** Escapes unreserved characters, which does not change the meaning (RFC 3986 6.2.2.2). */
function overEscaped(random: SeededRandom, path: string): string {
  const start = path.lastIndexOf('/') + 1;
  return (
    path.slice(0, start) +
    path
      .slice(start)
      .replaceAll(/%..|[A-Za-z0-9._~-]/g, (piece) =>
        piece.length > 1 || random.percent(60) ? piece : `%${piece.charCodeAt(0).toString(16)}`,
      )
  );
}
