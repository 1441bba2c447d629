// Tables for people: no borders, right-aligned numbers, never wider than the terminal. The widest columns shrink first, and
// their cells wrap, so that no text is lost.

import Table from 'cli-table3';
import { paint, wrap, type TerminalStyle, type Tone } from './terminal.ts';

export interface Column<R> {
  readonly head: string;
  readonly cell: (row: R) => string;
  readonly align?: 'left' | 'right';
  readonly tone?: (row: R) => Tone;
}

const GAP = 2;
const COLUMN_MIN = 6;

export function formatTable<R>(rows: readonly R[], columns: readonly Column<R>[], style: TerminalStyle): string {
  const texts = rows.map((row) => columns.map((column) => column.cell(row)));
  const natural = columns.map((column, at) =>
    Math.max(column.head.length, ...texts.flatMap((cells) => cells[at]!.split('\n').map((line) => line.length))),
  );
  const widths = fitWidths(natural, style.width);
  const table = new Table({
    head: columns.map((column, at) => paint(style, 'dim', wrap(column.head, widths[at]!).join('\n'))),
    colAligns: columns.map((column) => column.align ?? 'left'),
    chars: Object.fromEntries(BORDERS.map((name) => [name, name === 'middle' ? ' '.repeat(GAP) : ''])),
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0, compact: true },
  });
  for (const [index, cells] of texts.entries()) {
    table.push(
      cells.map((text, at) =>
        paint(style, columns[at]!.tone?.(rows[index]!) ?? 'plain', wrap(text, widths[at]!).join('\n')),
      ),
    );
  }
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

/** Lines of `label   value`. A long value wraps beside its label. */
export function formatFields(fields: readonly (readonly [string, string])[], style: TerminalStyle): string {
  const labelWidth = Math.max(...fields.map(([label]) => label.length)) + GAP;
  return fields
    .map(([label, value]) => {
      const lines = wrap(value, style.width - labelWidth);
      return lines
        .map((line, at) => (at === 0 ? paint(style, 'dim', label.padEnd(labelWidth)) : ' '.repeat(labelWidth)) + line)
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

/** Shrinks the widest column by one character at a time until the row fits. */
function fitWidths(natural: readonly number[], total: number): number[] {
  const widths = [...natural];
  const available = total - GAP * (widths.length - 1);
  let sum = widths.reduce((a, b) => a + b, 0);
  while (sum > available) {
    const widest = widths.indexOf(Math.max(...widths));
    if (widths[widest]! <= COLUMN_MIN) break;
    widths[widest]! -= 1;
    sum -= 1;
  }
  return widths;
}
