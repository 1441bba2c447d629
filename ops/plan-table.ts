// Fill plans as text: one row per appliance, or every rendition of one plan.

import type { FillPlan } from '../protocol/plan.ts';
import { formatBytes, formatDuration } from '../protocol/units.ts';
import { formatTable } from './table.ts';
import { paint, type TerminalStyle } from './terminal.ts';

/** One row per appliance. */
export function formatPlans(plans: readonly FillPlan[], style: TerminalStyle): string {
  return formatTable(
    plans,
    [
      { head: 'appliance', cell: (row) => row.appliance },
      { head: 'site', cell: (row) => row.site },
      { head: 'in', cell: (row) => String(row.add.length), align: 'right' },
      { head: 'out', cell: (row) => String(row.remove.length), align: 'right' },
      { head: 'stay', cell: (row) => String(row.keep.length), align: 'right' },
      { head: 'to fetch', cell: (row) => formatBytes(row.addBytes), align: 'right' },
      { head: 'to free', cell: (row) => formatBytes(totalBytes(row.remove)), align: 'right' },
      { head: 'takes', cell: (row) => formatExpectedTime(row), align: 'right' },
    ],
    style,
  );
}

/** Every rendition of one plan, with the reason for it. */
export function formatPlanItems(plan: FillPlan, style: TerminalStyle): string {
  const items = [
    ...plan.add.map((item) => ({ ...item, change: 'in' })),
    ...plan.remove.map((item) => ({ ...item, change: 'out' })),
    ...plan.keep.map((item) => ({ ...item, change: 'stays' })),
  ];
  const heading = `${paint(style, 'strong', plan.appliance)}  ${formatBytes(plan.addBytes)} to fetch`;
  if (items.length === 0) return `${heading}\nNothing is planned for it.`;
  return `${heading}\n${formatTable(
    items,
    [
      {
        head: '',
        cell: (row) => row.change,
        tone: (row) => (row.change === 'in' ? 'good' : row.change === 'out' ? 'warn' : 'dim'),
      },
      { head: 'rendition', cell: (row) => row.holding },
      { head: 'size', cell: (row) => formatBytes(row.bytes), align: 'right' },
      { head: 'why', cell: (row) => row.reason },
    ],
    style,
  )}`;
}

function formatExpectedTime({ addBytes, expectedMs }: FillPlan): string {
  if (addBytes === 0) return '–';
  return expectedMs === null ? 'unknown' : formatDuration(expectedMs);
}

const totalBytes = (items: readonly { readonly bytes: number }[]): number =>
  items.reduce((sum, item) => sum + item.bytes, 0);
