// Tables for people: no borders, right-aligned numbers, never wider than the terminal. Columns give way where they hold
// prose; their cells wrap, so that nothing is cut off.

import Table from 'cli-table3';
import { paint, wrap, type Look, type Tone } from './terminal.ts';

export interface Column<R> {
  readonly head: string;
  readonly cell: (row: R) => string;
  readonly align?: 'left' | 'right';
  readonly tone?: (row: R) => Tone;
}

const GAP = 2;
const COLUMN_MIN = 6;

export function formatTable<R>(rows: readonly R[], columns: readonly Column<R>[], look: Look): string {
  const texts = rows.map((row) => columns.map((column) => column.cell(row)));
  const natural = columns.map((column, at) =>
    Math.max(column.head.length, ...texts.flatMap((cells) => cells[at]!.split('\n').map((line) => line.length))),
  );
  const widths = fitWidths(natural, look.width);
  const table = new Table({
    head: columns.map((column, at) => paint(look, 'dim', wrap(column.head, widths[at]!).join('\n'))),
    colAligns: columns.map((column) => column.align ?? 'left'),
    chars: Object.fromEntries(BORDERS.map((name) => [name, name === 'middle' ? ' '.repeat(GAP) : ''])),
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0, compact: true },
  });
  for (const [index, cells] of texts.entries()) {
    table.push(
      cells.map((text, at) =>
        paint(look, columns[at]!.tone?.(rows[index]!) ?? 'plain', wrap(text, widths[at]!).join('\n')),
      ),
    );
  }
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

/** `Label   value` lines, the values wrapped beside their labels. */
export function formatFacts(facts: readonly (readonly [string, string])[], look: Look): string {
  const labelWidth = Math.max(...facts.map(([label]) => label.length)) + GAP;
  return facts
    .map(([label, value]) => {
      const lines = wrap(value, look.width - labelWidth);
      return lines
        .map((line, at) => (at === 0 ? paint(look, 'dim', label.padEnd(labelWidth)) : ' '.repeat(labelWidth)) + line)
        .join('\n');
    })
    .join('\n');
}

const BORDERS = [
  'top',
  'top-mid',
  'top-left',
  'top-right',
  'bottom',
  'bottom-mid',
  'bottom-left',
  'bottom-right',
  'left',
  'left-mid',
  'mid',
  'mid-mid',
  'right',
  'right-mid',
  'middle',
];

/** Takes from the widest column, one character at a time, until the row fits. */
function fitWidths(natural: readonly number[], total: number): number[] {
  const widths = [...natural];
  const room = total - GAP * (widths.length - 1);
  let sum = widths.reduce((a, b) => a + b, 0);
  while (sum > room) {
    const widest = widths.indexOf(Math.max(...widths));
    if (widths[widest]! <= COLUMN_MIN) break;
    widths[widest]! -= 1;
    sum -= 1;
  }
  return widths;
}
