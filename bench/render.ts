// An outcome as a table for a terminal of 80 columns.

import { meetsBar, type Bench, type Finding, type Outcome } from './bench.ts';

const COLUMNS = 80;

export function render(bench: Bench, outcome: Outcome): string {
  const heads = ['', 'larder', ...outcome.peers.map(({ name }) => name), 'ratio', 'bar'];
  const rows = outcome.findings.map((finding) => [
    `${finding.what}, ${finding.unit}`,
    figure(finding.larder),
    ...outcome.peers.map((_, at) => figure(finding.peers[at] ?? null)),
    // One digit more than the bars have, so that none reads as met that is missed.
    finding.ratio === null ? '' : finding.ratio.toFixed(3),
    barOf(finding),
  ]);
  const used = heads.map((_, at) => at < 2 || rows.some((row) => row[at] !== ''));
  const widths = heads.map((head, at) => Math.max(head.length, ...rows.map((row) => row[at]!.length)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, at) => (at === 0 ? cell.padEnd(widths[at]!) : cell.padStart(widths[at]!)))
      .filter((_, at) => used[at])
      .join('  ')
      .trimEnd();
  const notes = (outcome.notes ?? []).map((note) => `\n${wrapped(note)}`).join('');
  return `${bench.question}\n\n${[line(heads), ...rows.map(line)].join('\n')}\n${notes === '' ? '' : `${notes}\n`}`;
}

/** Broken at spaces. */
const wrapped = (text: string): string => text.replace(new RegExp(`(.{1,${COLUMNS}})(?: +|$)`, 'g'), '$1\n').trimEnd();

/** Three digits that matter, no more. */
export function figure(value: number | null): string {
  if (value === null || Number.isNaN(value)) return '';
  const decimals = Math.abs(value) >= 100 || Number.isInteger(value) ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toLocaleString('en', { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}

function barOf(finding: Finding): string {
  const { bar } = finding;
  if (bar === null) return '';
  return `${bar.at === 'least' ? '≥' : '≤'} ${bar.value.toLocaleString('en')} ${meetsBar(finding) ? '✓' : '✗'}`;
}
