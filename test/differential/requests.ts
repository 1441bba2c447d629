// Requests as players, proxies and attackers write them: mostly well-formed, with ranges and conditions around what is
// special about the asset, and a share that is bent in one place.

import { ASSETS, type Asset } from './assets.ts';
import { conditionLines, ifRangeValue } from './conditions.ts';
import { Chance } from './random.ts';
import { rangeValue } from './ranges.ts';
import type { Manner } from './stage.ts';
import { assetTarget, strayTarget } from './targets.ts';

const REQUESTS_MAX = 4;
const BODY = 'abcdefgh';

export interface Request {
  /** What stands between the request before and the request line. */
  readonly before: string;
  readonly method: string;
  /** `/cN` stands for a folder that nobody has asked before. */
  readonly target: string;
  readonly version: string;
  /** Field lines as they go over the wire; the end of the section is not among them. */
  readonly lines: readonly string[];
  readonly eol: string;
  readonly body: string;
  /** What the target names, where it is sure to name something. */
  readonly asset: Asset | null;
}

export interface Case {
  readonly number: number;
  readonly manner: Manner;
  /** All at once, or each after the answer to the one before. */
  readonly pipelined: boolean;
  readonly requests: readonly Request[];
}

/** In latin1. */
export function requestText(request: Request, prefix: string): string {
  const { before, method, target, version, lines, eol, body } = request;
  const start = [method, target.replaceAll('/cN', prefix), ...(version === '' ? [] : [version])].join(' ');
  return `${before}${[start, ...lines, '', ''].join(eol)}${body}`;
}

/** Name in lower case and value of each line that is a field; folded lines in one. */
export function fieldsOf({ lines }: Request): (readonly [name: string, value: string])[] {
  return lines.flatMap((line) => {
    const colon = line.indexOf(':');
    const value = line.slice(colon + 1).replaceAll(/\r\n[\t ]+/g, ' ');
    return colon < 1 ? [] : [[line.slice(0, colon).trim().toLowerCase(), value.trim()] as const];
  });
}

export function makeCase(seed: number, number: number): Case {
  const chance = new Chance(seed, number);
  const count = chance.weighted([
    [50, 1],
    [25, 2],
    [15, 3],
    [10, REQUESTS_MAX],
  ]);
  const favourite = pickAsset(chance);
  const requests = chance.some(count, () => makeRequest(chance, chance.percent(70) ? favourite : pickAsset(chance)));
  // Whoever writes on behind this one waits for ever: once is enough to know it.
  const upgrades = requests.some(({ lines }) => lines.includes('Upgrade: h2c'));
  return {
    number,
    manner: chance.percent(25) ? 'proxy' : 'plain',
    pipelined: chance.percent(upgrades ? 1 : 30),
    requests: requests.map((request, at) => (at < count - 1 && chance.percent(90) ? tame(request) : request)),
  };
}

/** The big ones seldom: it is their edges that matter. */
function pickAsset(chance: Chance): Asset {
  const asset = chance.of(ASSETS);
  return asset.body.length > 100_000 && chance.percent(50) ? chance.of(ASSETS) : asset;
}

/** Without what ends a connection, so that what follows is answered. */
function tame(request: Request): Request {
  return {
    ...request,
    ...{ before: '', version: 'HTTP/1.1', eol: '\r\n', body: '' },
    method: ['GET', 'HEAD', 'OPTIONS'].includes(request.method) ? request.method : 'GET',
    lines: [
      'Host: larder.test',
      ...request.lines.filter((line) => /^(range|if-[a-z-]+|accept[a-z-]*|cache-control|pragma): /i.test(line)),
    ],
  };
}

function makeRequest(chance: Chance, named: Asset): Request {
  const method = chance.weighted([
    [82, 'GET'],
    [10, 'HEAD'],
    [2, 'OPTIONS'],
    [3, chance.of(['POST', 'PUT', 'DELETE', 'PATCH'])],
    [2, chance.of(['TRACE', 'PROPFIND', 'PURGE', 'CONNECT'])],
    [1, chance.of(['get', 'Get', 'FOO', 'GETT', 'G=T', ''])],
  ]);
  const stray = chance.percent(8);
  const target = stray ? strayTarget(chance, named) : assetTarget(chance, named);
  const asset = stray ? null : named;
  const request: Request = {
    before: chance.percent(0.5) ? chance.of(['\r\n', '\r\n\r\n', '\n', ' ']) : '',
    method,
    target,
    version: chance.weighted([
      [93, 'HTTP/1.1'],
      [5, 'HTTP/1.0'],
      [
        2,
        chance.of([
          'HTTP/1.2',
          'HTTP/1.9',
          'HTTP/2.0',
          'HTTP/0.9',
          'HTTP/3.0',
          'http/1.1',
          'HTTP/1',
          'HTTP/1.10',
          'HTTP /1.1',
        ]),
      ],
    ]),
    lines: makeLines(chance, { method, asset: named }),
    eol: chance.percent(0.5) ? '\n' : '\r\n',
    body: '',
    asset,
  };
  return bent(chance, withBody(chance, kept(chance, request)));
}

function makeLines(chance: Chance, spec: { readonly method: string; readonly asset: Asset }): string[] {
  const { asset } = spec;
  const lines = hostLines(chance);
  if (chance.percent(65)) {
    lines.push(`Range: ${rangeValue(chance, asset.body.length)}`);
    if (chance.percent(20)) lines.push(`If-Range: ${ifRangeValue(chance, asset)}`);
  } else if (chance.percent(3)) lines.push(`If-Range: ${ifRangeValue(chance, asset)}`);
  if (chance.percent(30)) lines.push(...conditionLines(chance, asset));
  if (chance.percent(25)) lines.push(...chance.some(1 + chance.below(2), () => chance.of(OTHERS).split('\r\n')).flat());
  return chance.percent(20) ? chance.shuffled(lines) : lines;
}

function hostLines(chance: Chance): string[] {
  if (chance.percent(96)) return ['Host: larder.test'];
  return chance
    .of<readonly string[]>([
      [],
      ['Host: a', 'Host: a'],
      ['Host: a', 'Host: b'],
      ...['larder.test:8080', '127.0.0.1', '[::1]:80', 'LARDER.test.'].map((host) => [`Host: ${host}`]),
      ...['', 'a b', 'a/b', 'a,b', 'user@larder.test', 'larder.test:x'].map((host) => [`Host: ${host}`]),
    ])
    .slice();
}

/** Fields that change nothing about which bytes are meant. */
const OTHERS: readonly string[] = [
  'Connection: keep-alive',
  'Connection: close',
  'Connection: CLOSE',
  'Connection: close, x-hop',
  'Connection: keep-alive, close',
  'Connection: x-hop',
  'Keep-Alive: timeout=1',
  'Proxy-Connection: close',
  'Connection: Upgrade\r\nUpgrade: h2c',
  'Accept-Encoding: gzip, br',
  'Accept-Encoding: identity;q=0',
  'Accept: image/png',
  'Accept-Language: fi',
  'User-Agent: fuzz',
  'Cookie: a=b',
  'Authorization: Basic YTpi',
  'Cache-Control: no-cache',
  'Cache-Control: no-store',
  'Cache-Control: max-age=0',
  'Cache-Control: only-if-cached',
  'Cache-Control: min-fresh=10, max-stale=5',
  'Pragma: no-cache',
  'Expect: 100-continue',
  'Expect: 200-ok',
  'TE: trailers',
  'Via: 1.0 somebody',
  'X-Forwarded-For: 192.0.2.1',
  'X-Empty:',
  'X-Tab:\tvalue\t',
  'X-High: \xe4\xff',
  'Origin: http://page.example',
  'Max-Forwards: 0',
  'Content-Type: text/plain',
];

/** HTTP/1.0 keeps a connection only for those who ask. */
const kept = (chance: Chance, request: Request): Request =>
  request.version === 'HTTP/1.0' && chance.percent(30)
    ? { ...request, lines: [...request.lines, 'Connection: keep-alive'] }
    : request;

function withBody(chance: Chance, request: Request): Request {
  if (!chance.percent(request.method === 'GET' || request.method === 'HEAD' ? 1.5 : 20)) return request;
  const length = BODY.length;
  const [lines, body] = chance.of<readonly [string[], string]>([
    [[`Content-Length: ${length}`], BODY],
    [['Content-Length: 0'], ''],
    [['Transfer-Encoding: chunked'], `${length}\r\n${BODY}\r\n0\r\n\r\n`],
    [['Transfer-Encoding: chunked'], '0\r\n\r\n'],
    [['Transfer-Encoding: chunked', `Content-Length: ${length}`], `${length}\r\n${BODY}\r\n0\r\n\r\n`],
    [['Transfer-Encoding: gzip'], ''],
    [[`Content-Length: ${length}`, `Content-Length: ${length}`], BODY],
    [[`Content-Length: ${length}`, `Content-Length: ${length + 1}`], `${BODY}x`],
    [['Content-Length: -1'], ''],
    [['Content-Length: 0x8'], BODY],
    [[`Content-Length: ${length}`, 'Expect: 100-continue'], BODY],
  ]);
  return { ...request, lines: [...request.lines, ...lines], body };
}

/** One thing in the field section that is not as it should be. */
function bent(chance: Chance, request: Request): Request {
  if (!chance.percent(6) || request.lines.length === 0) return request;
  const at = chance.below(request.lines.length);
  const line = request.lines[at]!;
  const [name = '', value = ''] = line.split(/: ?(.*)/s);
  const change = chance.weighted<() => readonly string[]>([
    [20, () => [line, line]],
    [15, () => [line, `${name}: ${chance.of(['x', '*', '"x"', 'bytes=0-0', 'bytes=1-'])}`]],
    [10, () => [`${name}:${value}`]],
    [10, () => [`${name}: \t  ${value}  \t`]],
    [10, () => [`${chance.percent(50) ? name.toUpperCase() : name.toLowerCase()}: ${value}`]],
    [
      10,
      () => [
        `${name}:${chance.percent(50) ? '' : ` ${value.slice(0, 6)}`}\r\n${chance.of([' ', '\t'])}${value.slice(6)}`,
      ],
    ],
    [5, () => [`${name} : ${value}`]],
    [3, () => [` ${line}`]],
    [3, () => [line.replace(': ', ' ')]],
    [3, () => [`${name}: ${value}${chance.of(['\0', '\x01', '\x7f', '\x0b', '\r'])}`]],
    [3, () => [line, `${chance.of(['X Y', 'X(Y', 'X\x80', 'X_Y', '', 'X/Y'])}: z`]],
    [3, () => [line, `X-Long: ${'x'.repeat(chance.of([1_000, 8_000, 9_000, 20_000]))}`]],
    [3, () => [line, ...Array.from({ length: chance.of([50, 150]) }, (_, n) => `X-${n}: y`)]],
  ]);
  return { ...request, lines: request.lines.toSpliced(at, 1, ...change()) };
}
