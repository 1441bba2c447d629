// Requests as players, proxies and attackers write them: mostly well-formed, with ranges and conditions around the boundaries of
// the asset, and a share that is mutated in one place.

import { ASSETS, type Asset } from './assets.ts';
import { conditionLines, ifRangeValue } from './conditions.ts';
import { SeededRandom } from './random.ts';
import { rangeValue } from './ranges.ts';
import type { ApplianceMode } from './servers.ts';
import { assetTarget, unusualTarget } from './targets.ts';

const REQUESTS_MAX = 4;
const BODY = 'abcdefgh';

export interface Request {
  /** Bytes before the request line. */
  readonly before: string;
  readonly method: string;
  /** `/cN` stands for a directory that has not been requested before. */
  readonly target: string;
  readonly version: string;
  /** Field lines as they are sent, without the empty line at the end. */
  readonly lines: readonly string[];
  readonly eol: string;
  readonly body: string;
  /** The asset that the target names; null if it may name none. */
  readonly asset: Asset | null;
}

export interface Case {
  readonly number: number;
  readonly mode: ApplianceMode;
  /** Requests are sent all at once, not each after the response to the one before. */
  readonly pipelined: boolean;
  readonly requests: readonly Request[];
}

/** The request as text in latin1; `prefix` replaces `/cN`. */
export function requestText(request: Request, prefix: string): string {
  const { before, method, target, version, lines, eol, body } = request;
  const start = [method, target.replaceAll('/cN', prefix), ...(version === '' ? [] : [version])].join(' ');
  return `${before}${[start, ...lines, '', ''].join(eol)}${body}`;
}

/** Name in lower case and value of each field line; folded lines are joined. */
export function fieldsOf({ lines }: Request): (readonly [name: string, value: string])[] {
  return lines.flatMap((line) => {
    const colon = line.indexOf(':');
    const value = line.slice(colon + 1).replaceAll(/\r\n[\t ]+/g, ' ');
    return colon < 1 ? [] : [[line.slice(0, colon).trim().toLowerCase(), value.trim()] as const];
  });
}

export function makeCase(seed: number, number: number): Case {
  const random = new SeededRandom(seed, number);
  const count = random.weighted([
    [50, 1],
    [25, 2],
    [15, 3],
    [10, REQUESTS_MAX],
  ]);
  const mainAsset = pickAsset(random);
  const requests = random.times(count, () => makeRequest(random, random.percent(70) ? mainAsset : pickAsset(random)));
  // A pipelined request behind an Upgrade is never answered. Each such case costs a deadline, so they are rare.
  const upgrades = requests.some(({ lines }) => lines.includes('Upgrade: h2c'));
  return {
    number,
    mode: random.percent(25) ? 'proxy' : 'plain',
    pipelined: random.percent(upgrades ? 1 : 30),
    requests: requests.map((request, at) =>
      at < count - 1 && random.percent(90) ? keepingConnection(request) : request,
    ),
  };
}

/** Large assets are picked less often. */
function pickAsset(random: SeededRandom): Asset {
  const asset = random.pick(ASSETS);
  return asset.body.length > 100_000 && random.percent(50) ? random.pick(ASSETS) : asset;
}

/** The request without anything that ends the connection, so that the next one is answered. */
function keepingConnection(request: Request): Request {
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

function makeRequest(random: SeededRandom, named: Asset): Request {
  const method = random.weighted([
    [82, 'GET'],
    [10, 'HEAD'],
    [2, 'OPTIONS'],
    [3, random.pick(['POST', 'PUT', 'DELETE', 'PATCH'])],
    [2, random.pick(['TRACE', 'PROPFIND', 'PURGE', 'CONNECT'])],
    [1, random.pick(['get', 'Get', 'FOO', 'GETT', 'G=T', ''])],
  ]);
  const unusual = random.percent(8);
  const target = unusual ? unusualTarget(random, named) : assetTarget(random, named);
  const asset = unusual ? null : named;
  const request: Request = {
    before: random.percent(0.5) ? random.pick(['\r\n', '\r\n\r\n', '\n', ' ']) : '',
    method,
    target,
    version: random.weighted([
      [93, 'HTTP/1.1'],
      [5, 'HTTP/1.0'],
      [
        2,
        random.pick([
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
    lines: makeLines(random, { method, asset: named }),
    eol: random.percent(0.5) ? '\n' : '\r\n',
    body: '',
    asset,
  };
  return mutated(random, withBody(random, withKeepAlive(random, request)));
}

function makeLines(random: SeededRandom, spec: { readonly method: string; readonly asset: Asset }): string[] {
  const { asset } = spec;
  const lines = hostLines(random);
  if (random.percent(65)) {
    lines.push(`Range: ${rangeValue(random, asset.body.length)}`);
    if (random.percent(20)) lines.push(`If-Range: ${ifRangeValue(random, asset)}`);
  } else if (random.percent(3)) lines.push(`If-Range: ${ifRangeValue(random, asset)}`);
  if (random.percent(30)) lines.push(...conditionLines(random, asset));
  if (random.percent(25))
    lines.push(...random.times(1 + random.below(2), () => random.pick(OTHER_FIELDS).split('\r\n')).flat());
  return random.percent(20) ? random.shuffled(lines) : lines;
}

function hostLines(random: SeededRandom): string[] {
  if (random.percent(96)) return ['Host: larder.test'];
  return random
    .pick<readonly string[]>([
      [],
      ['Host: a', 'Host: a'],
      ['Host: a', 'Host: b'],
      ...['larder.test:8080', '127.0.0.1', '[::1]:80', 'LARDER.test.'].map((host) => [`Host: ${host}`]),
      ...['', 'a b', 'a/b', 'a,b', 'user@larder.test', 'larder.test:x'].map((host) => [`Host: ${host}`]),
    ])
    .slice();
}

/** Fields that do not select other bytes. */
const OTHER_FIELDS: readonly string[] = [
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

/** HTTP/1.0 keeps a connection open only on request. */
const withKeepAlive = (random: SeededRandom, request: Request): Request =>
  request.version === 'HTTP/1.0' && random.percent(30)
    ? { ...request, lines: [...request.lines, 'Connection: keep-alive'] }
    : request;

function withBody(random: SeededRandom, request: Request): Request {
  if (!random.percent(request.method === 'GET' || request.method === 'HEAD' ? 1.5 : 20)) return request;
  const length = BODY.length;
  const [lines, body] = random.pick<readonly [string[], string]>([
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

/** The request with one field line changed. */
function mutated(random: SeededRandom, request: Request): Request {
  if (!random.percent(6) || request.lines.length === 0) return request;
  const at = random.below(request.lines.length);
  const line = request.lines[at]!;
  const [name = '', value = ''] = line.split(/: ?(.*)/s);
  const change = random.weighted<() => readonly string[]>([
    [20, () => [line, line]],
    [15, () => [line, `${name}: ${random.pick(['x', '*', '"x"', 'bytes=0-0', 'bytes=1-'])}`]],
    [10, () => [`${name}:${value}`]],
    [10, () => [`${name}: \t  ${value}  \t`]],
    [10, () => [`${random.percent(50) ? name.toUpperCase() : name.toLowerCase()}: ${value}`]],
    [
      10,
      () => [
        `${name}:${random.percent(50) ? '' : ` ${value.slice(0, 6)}`}\r\n${random.pick([' ', '\t'])}${value.slice(6)}`,
      ],
    ],
    [5, () => [`${name} : ${value}`]],
    [3, () => [` ${line}`]],
    [3, () => [line.replace(': ', ' ')]],
    [3, () => [`${name}: ${value}${random.pick(['\0', '\x01', '\x7f', '\x0b', '\r'])}`]],
    [3, () => [line, `${random.pick(['X Y', 'X(Y', 'X\x80', 'X_Y', '', 'X/Y'])}: z`]],
    [3, () => [line, `X-Long: ${'x'.repeat(random.pick([1_000, 8_000, 9_000, 20_000]))}`]],
    [3, () => [line, ...Array.from({ length: random.pick([50, 150]) }, (_, n) => `X-${n}: y`)]],
  ]);
  return { ...request, lines: request.lines.toSpliced(at, 1, ...change()) };
}
