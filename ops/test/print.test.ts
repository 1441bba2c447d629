// Output for people: tables that fit the terminal, progress bars and lines, and instants as operators type them.

import { PassThrough } from 'node:stream';
import { stripVTControlCharacters } from 'node:util';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { INSTANT_EXPECTED, parseUpcomingInstant, parseInstant } from '../instant.ts';
import { createProgress, formatBar, formatLine, RateMeter } from '../progress.ts';
import { formatFields, formatTable, type Column } from '../table.ts';
import { terminalStyle, wrap, type TerminalStyle } from '../terminal.ts';

const PIPE: TerminalStyle = { width: 80, color: false };
const plain = (text: string): string => stripVTControlCharacters(text);

test('property: a table of eight columns fits 80 columns, and no character of a cell is lost', () => {
  const cell = fc.stringMatching(/^[a-zA-Z0-9:/._-]{0,90}( [a-z]{1,12}){0,6}$/);
  const rows = fc.array(fc.array(cell, { minLength: 8, maxLength: 8 }), { minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(rows, fc.boolean(), (cells, color) => {
      const columns: Column<string[]>[] = Array.from({ length: 8 }, (_, at) => ({
        head: `column ${at}`,
        cell: (row) => row[at]!,
        tone: () => 'good',
        align: at % 2 === 0 ? 'left' : 'right',
      }));
      const text = formatTable(cells, columns, { width: 80, color });
      const lines = text.split('\n');
      const letters = (all: string): string => plain(all).replaceAll(/\s/g, '').split('').sort().join('');
      expect(Math.max(...lines.map((line) => plain(line).length))).toBeLessThanOrEqual(80);
      expect(letters(text)).toBe(letters(columns.map((column) => column.head).join('') + cells.flat().join('')));
    }),
    { numRuns: 60 },
  );
});

test('a table has a header, gaps of two spaces, right-aligned numbers, and no trailing spaces', () => {
  const rows = [
    { name: 'north-1', bytes: '5.1 MB' },
    { name: 'south', bytes: '10 B' },
  ];
  const text = formatTable(
    rows,
    [
      { head: 'name', cell: (row) => row.name },
      { head: 'bytes', cell: (row) => row.bytes, align: 'right' },
    ],
    PIPE,
  );
  expect(text).toBe('name      bytes\nnorth-1  5.1 MB\nsouth      10 B');
});

test('long values wrap beside their labels', () => {
  const text = formatFields([['causes', 'the disk is slow; '.repeat(12).trim()]], PIPE);
  for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(80);
  expect(text.split('\n')[1]).toMatch(/^ {8}\S/);
});

test('property: wrapping loses nothing but the spaces at line breaks', () => {
  fc.assert(
    fc.property(fc.stringMatching(/^[a-z ]{0,200}$/), fc.integer({ min: 1, max: 90 }), (text, width) => {
      const lines = wrap(text, width);
      expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(width);
      expect(lines.join('').replaceAll(' ', '')).toBe(text.replaceAll(' ', ''));
    }),
  );
});

test('colour requires a terminal, and NO_COLOR or a dumb terminal disables it', () => {
  expect(terminalStyle({ isTTY: true, columns: 100 }, {})).toEqual({ width: 100, color: true });
  expect(terminalStyle({ isTTY: true, columns: 400 }, { NO_COLOR: '1' })).toEqual({ width: 120, color: false });
  expect(terminalStyle({ isTTY: true }, { TERM: 'dumb' }).color).toBe(false);
  expect(terminalStyle({ isTTY: true }, { NO_COLOR: '' }).color).toBe(true);
  expect(terminalStyle({ columns: 300 }, {})).toEqual({ width: 80, color: false });
});

const ROW = { name: 'north-1', done: 5_400_000, total: 12_000_000, bytesPerSecond: 4_762_500 };

test('a bar shows name, share, bytes, rate and time left in 80 columns', () => {
  const bar = formatBar(ROW, 0.45, PIPE, 7);
  expect(bar).toMatch(/^north-1 {2}━+─+ +45 % +5\.40 of 12\.0 MB +38\.1 Mb\/s +1 s left$/);
  expect(bar.length).toBeLessThanOrEqual(80);
  const wide = { name: 'a'.repeat(24), done: 999e12, total: 1_999e12, bytesPerSecond: 1e9 };
  expect(formatBar(wide, 0.5, PIPE, 24).length).toBeLessThanOrEqual(90);
});

test('a bar shows rate and time left as soon as its note is gone', () => {
  const terminal = Object.assign(new PassThrough(), { isTTY: true, columns: 80 });
  const progress = createProgress(terminal as unknown as NodeJS.WriteStream);
  progress.show([{ ...ROW, done: 0, note: 'waiting' }]);
  progress.show([ROW]);
  progress.stop();
  let printed = '';
  for (let piece = terminal.read() as Buffer | null; piece !== null; piece = terminal.read() as Buffer | null)
    printed += piece.toString();
  const last = plain(printed).slice(plain(printed).lastIndexOf('north-1'));
  expect(last).toContain('38.1 Mb/s  1 s left');
  expect(last).not.toContain('waiting');
});

test('a pipe gets plain lines, and always the last state', () => {
  expect(formatLine(ROW)).toBe('north-1: 5.40 of 12.0 MB, 45 %, 38.1 Mb/s, 1 s left');
  const pipe = new PassThrough();
  const progress = createProgress(pipe as unknown as NodeJS.WriteStream);
  progress.show([{ ...ROW, name: 'fill' }]);
  progress.show([{ ...ROW, name: 'fill', done: 6_000_000 }]);
  progress.show([{ ...ROW, name: 'fill', done: 12_000_000, note: 'done' }]);
  progress.stop();
  // Newer versions of Node return one write per read.
  let printed = '';
  for (let piece = pipe.read() as Buffer | null; piece !== null; piece = pipe.read() as Buffer | null)
    printed += piece.toString();
  expect(printed.split('\n')).toEqual([
    'fill: 5.40 of 12.0 MB, 45 %, 38.1 Mb/s, 1 s left',
    'fill: 12.0 of 12.0 MB, 100 %, done',
    '',
  ]);
});

test('the rate is that of the last seconds, not of the whole transfer', () => {
  const meter = new RateMeter();
  expect(meter.record(0, 0)).toBeNull();
  expect(meter.record(1_000, 100)).toBe(100);
  let rate: number | null = null;
  for (let second = 2; second <= 12; second += 1) rate = meter.record(second * 1_000, 100 + (second - 1) * 1_000);
  expect(rate).toBe(1_000);
});

test('an instant is a clock time, a date, or a date and time with or without a zone', () => {
  const noon = new Date(2026, 2, 1, 12, 0, 0).getTime();
  expect(parseInstant('13:30', noon)).toBe(new Date(2026, 2, 1, 13, 30).getTime());
  expect(parseInstant('02:00', noon)).toBe(new Date(2026, 2, 2, 2, 0).getTime());
  expect(parseInstant('12:00', noon)).toBe(new Date(2026, 2, 2, 12, 0).getTime());
  expect(parseInstant('12:00', noon, 'last')).toBe(noon);
  expect(parseInstant('13:30', noon, 'last')).toBe(new Date(2026, 1, 28, 13, 30).getTime());
  expect(parseInstant('2026-03-01T02:00+01:00', noon)).toBe(Date.UTC(2026, 2, 1, 1, 0));
  expect(parseInstant('2026-04-01', noon)).toBe(new Date(2026, 3, 1).getTime());
  for (const text of ['', 'soon', '24:00', '1:60', '2026-13-01', '2026-03-01T25:00', '99', 'tomorrow'])
    expect(parseInstant(text, noon), text).toBeNull();
  expect(() => parseUpcomingInstant('soon')).toThrow(INSTANT_EXPECTED);
});
