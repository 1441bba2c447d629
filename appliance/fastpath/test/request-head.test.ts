// The strict parser of plain requests: what it accepts it must parse as the full parsers do; everything else it must leave to
// them.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseTarget, type KeyMode } from '../../http/asset-key.ts';
import { fastKey, RequestHead } from '../request-head.ts';
import { selectRanges } from '../../http/range.ts';

const LENGTH = 1_000;
const head = new RequestHead();
const accepts = (text: string): boolean => head.parse(text);
const withField = (line: string): string => `GET /a HTTP/1.1\r\nHost: x\r\n${line}\r\n\r\n`;

describe('a plain request', () => {
  test.each([
    'GET /a HTTP/1.1\r\nHost: x\r\n\r\n',
    'GET /a HTTP/1.1\r\nhost:\r\n\r\n',
    'HEAD /a?b=c HTTP/1.1\r\nHOST: x\r\nuser-AGENT: y\r\n\r\n',
    withField('Connection: keep-alive'),
    withField('connection: Keep-Alive'),
    withField('Range: bytes=0-0'),
    withField('Sec-Fetch-Dest: video'),
    withField('CMCD-Object: br=1,ot=v'),
  ])('is accepted: %j', (text) => expect(accepts(text)).toBe(true));
});

describe('left to node:http is', () => {
  test.each([
    ...['', 'GET', 'GET /a HTTP/1.1\r\n\r\n', 'GET /a HTTP/1.1\r\nHost: x\r\n', 'GET /a HTTP/1.1\r\nHost: x\n\n'],
    ...[
      'GET /a HTTP/1.0\r\nHost: x\r\n\r\n',
      'GET  /a HTTP/1.1\r\nHost: x\r\n\r\n',
      'get /a HTTP/1.1\r\nHost: x\r\n\r\n',
    ],
    ...[
      'POST /a HTTP/1.1\r\nHost: x\r\n\r\n',
      'GET http://x/a HTTP/1.1\r\nHost: x\r\n\r\n',
      '\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n',
    ],
    'GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n',
    'GET /a HTTP/1.1\r\nHost: x\r\n\r\nx',
    ...[
      ...['Host: y', 'Host : y', 'Connection: close', 'Connection: keep-alive, upgrade', 'Connection:  keep-alive'],
      ...[
        'Cache-Control: no-cache',
        'Pragma: no-cache',
        'If-None-Match: "a"',
        'If-Range: "a"',
        'Authorization: Basic eA==',
      ],
      ...['Expect: 100-continue', 'Upgrade: h2c', 'TE: trailers', 'Content-Length: 0', 'Transfer-Encoding: chunked'],
      ...[
        'Range: bytes=1',
        'Range: bytes=-',
        'Range: bytes=-0',
        'Range: bytes=2-1',
        'Range: bytes=0-1,3-4',
        'Range: bytes= 0-1',
      ],
      ...[
        'Range: bytes=0-1 ',
        'Range:bytes=0-1',
        'Range: bytes=0x1-2',
        'Range: Bytes=0-1',
        'Range: bytes=0-1\r\nRange: bytes=2-3',
      ],
      ...[
        'Range: bytes=0-1234567890123456',
        'Unknown: x',
        'Accept: a\tb',
        'Accept: \x7f',
        'Accept: \xe9',
        'Accept: a\r\n b',
        ': x',
        'Accept',
      ],
      ...['Cmcd-\x01: a', 'X Y: z', 'Via: 1.1 x'],
    ].map(withField),
  ])('%j', (text) => expect(accepts(text)).toBe(false));
});

test('property: an accepted range selects the bytes that the full parser selects', () => {
  const digits = fc.oneof(
    fc.nat(2 * LENGTH).map(String),
    fc.constantFrom('', '0', '000', '7', '999', '1000', '99999999999'),
  );
  const value = fc
    .tuple(
      fc.constantFrom('bytes=', 'bytes=', 'bytes=', 'bytes= ', 'Bytes=', 'byte='),
      digits,
      fc.constantFrom('-', '-', '-', '--', ''),
      digits,
    )
    .map((parts) => parts.join(''));
  let accepted = 0;
  fc.assert(
    fc.property(value, (range) => {
      if (!accepts(withField(`Range: ${range}`))) return;
      accepted += 1;
      const first = head.first === -1 ? Math.max(0, LENGTH - head.last) : head.first;
      const last = head.first === -1 ? LENGTH - 1 : Math.min(head.last, LENGTH - 1);
      expect(selectRanges(range, LENGTH)).toEqual(
        first < LENGTH ? { kind: 'ranges', ranges: [{ first, last }] } : { kind: 'unsatisfiable' },
      );
    }),
    { numRuns: 3_000 },
  );
  expect(accepted).toBeGreaterThan(250);
});

test('property: the key is the one that the full parser finds, or there is none', () => {
  const word = fc.constantFrom(
    'a',
    'film.m4s',
    '~s1',
    '~',
    '~a~b',
    '..',
    '.',
    '.x',
    'x.',
    '',
    '%41',
    '%2e',
    '%zz',
    'é',
    'a b',
    '#',
    '\\',
    ':@!$&,;=',
    '~'.repeat(3),
    `~${'s'.repeat(513)}`,
  );
  const query = fc.constantFrom('', '?', '?a=1', '?CMCD=x', '?a=1&CMCD=br%3D1', '?#', '?\\', '?a?b', '?é');
  const target = fc.tuple(fc.array(word, { maxLength: 4 }), query).map(([words, end]) => `/${words.join('/')}${end}`);
  fc.assert(
    fc.property(target, fc.constantFrom<KeyMode>('alone', 'fleet'), (text, mode) => {
      let expected: string | null = null;
      try {
        expected = parseTarget(text, mode).key;
      } catch {
        // Refused.
      }
      expect(fastKey(text, mode)).toBe(expected);
    }),
    { numRuns: 5_000 },
  );
});
