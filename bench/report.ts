// Formats an outcome as a table for a terminal of 80 columns.

import { isExcused, meetsBar, type Bench, type Finding, type BenchOutcome } from './bench.ts';

const COLUMNS = 80;
const EXCUSE =
  '~ misses its bar at nine tenths or more of what the best program does that only copies memory to sockets.';

export function formatOutcome(bench: Bench, outcome: BenchOutcome): string {
  const heads = ['', 'larder', ...outcome.peers.map(({ name }) => name), 'ratio', 'bar'];
  const rows = outcome.findings.map((finding) => [
    `${finding.what}, ${finding.unit}`,
    formatFigure(finding.larder),
    ...outcome.peers.map((_, at) => formatFigure(finding.peers[at] ?? null)),
    // One digit more than the bars have, so that a missed bar does not look met.
    finding.ratio === null ? '' : finding.ratio.toFixed(3),
    formatBar(finding),
  ]);
  const isUsed = heads.map((_, at) => at < 2 || rows.some((row) => row[at] !== ''));
  const widths = heads.map((head, at) => Math.max(head.length, ...rows.map((row) => row[at]!.length)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, at) => (at === 0 ? cell.padEnd(widths[at]!) : cell.padStart(widths[at]!)))
      .filter((_, at) => isUsed[at])
      .join('  ')
      .trimEnd();
  const excuses = outcome.findings.some(isExcused) ? [EXCUSE] : [];
  const notes = [...(outcome.notes ?? []), ...excuses].map((note) => `\n${wrapText(note)}`).join('');
  return `${bench.question}\n\n${[line(heads), ...rows.map(line)].join('\n')}\n${notes === '' ? '' : `${notes}\n`}`;
}

/** Breaks lines at spaces. */
const wrapText = (text: string): string => text.replace(new RegExp(`(.{1,${COLUMNS}})(?: +|$)`, 'g'), '$1\n').trimEnd();

/** Three significant digits. */
export function formatFigure(value: number | null): string {
  if (value === null || Number.isNaN(value)) return '';
  const decimals = Math.abs(value) >= 100 || Number.isInteger(value) ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toLocaleString('en', { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}

function formatBar(finding: Finding): string {
  const { bar } = finding;
  if (bar === null) return '';
  const mark = meetsBar(finding) ? '✓' : isExcused(finding) ? '~' : '✗';
  return `${bar.at === 'least' ? '≥' : '≤'} ${bar.value.toLocaleString('en')} ${mark}`;
}
