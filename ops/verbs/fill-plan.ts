// `larder fill plan`: what a run would do now, per appliance. Nothing is changed by asking.

import type { Command } from 'commander';
import { planList } from '../../protocol/answers.ts';
import { Fault } from '../../protocol/faults.ts';
import type { FillPlan } from '../../protocol/plan.ts';
import { formatBytes, formatDuration } from '../../protocol/units.ts';
import { addFlags, CLIENT_TABLE, readFlags, type Verb } from '../../runtime/command.ts';
import { option } from '../../runtime/config.ts';
import { say, servicesOf } from '../ask.ts';
import { formatTable } from '../table.ts';
import { paint, type Look } from '../terminal.ts';

const TABLE = {
  appliance: option.optional(option.id({ doc: 'Every rendition of this appliance, with its reason' })),
  ...CLIENT_TABLE,
} as const;

const EXAMPLES = `
Examples:
  larder fill plan
  larder fill plan --appliance north-1
  larder fill plan --json | jq '[.plans[].addBytes] | add'`;

export const verb: Verb = {
  build(command: Command): void {
    addFlags(command, TABLE, 'no file').addHelpText('after', EXAMPLES).action(show);
  },
};

async function show(_flags: unknown, command: Command): Promise<void> {
  const values = readFlags(command, TABLE);
  const answer = await servicesOf(values).fill('/v1/plans', planList);
  if (values.appliance === null) return say(values, answer, (look) => formatPlans(answer.plans, look));
  const plan = answer.plans.find((row) => row.appliance === values.appliance);
  if (plan === undefined) {
    const known = answer.plans.map((row) => row.appliance).join(', ');
    throw new Fault('not_found', `no plan is made for "${values.appliance}"; there is one for ${known || 'nobody'}`);
  }
  say(values, plan, (look) => formatItems(plan, look));
}

export function formatPlans(plans: readonly FillPlan[], look: Look): string {
  if (plans.length === 0) return 'No appliance to plan for: none has reported. See: larder appliance ls';
  const table = formatTable(
    plans,
    [
      { head: 'appliance', cell: (row) => row.appliance },
      { head: 'site', cell: (row) => row.site },
      { head: 'in', cell: (row) => String(row.add.length), align: 'right' },
      { head: 'out', cell: (row) => String(row.remove.length), align: 'right' },
      { head: 'stay', cell: (row) => String(row.keep.length), align: 'right' },
      { head: 'to fetch', cell: (row) => formatBytes(row.addBytes), align: 'right' },
      { head: 'to free', cell: (row) => formatBytes(sumBytes(row.remove)), align: 'right' },
      {
        head: 'takes',
        cell: (row) => takes(row),
        align: 'right',
      },
    ],
    look,
  );
  const bytes = plans.reduce((sum, plan) => sum + plan.addBytes, 0);
  const summary =
    bytes === 0
      ? 'Nothing to fetch: every appliance holds its share.'
      : `${formatBytes(bytes)} to fetch. Now: larder fill run --now; tonight: larder fill run --wait`;
  return `${table}\n\n${summary}`;
}

function formatItems(plan: FillPlan, look: Look): string {
  const items = [
    ...plan.add.map((item) => ({ ...item, what: 'in' })),
    ...plan.remove.map((item) => ({ ...item, what: 'out' })),
    ...plan.keep.map((item) => ({ ...item, what: 'stays' })),
  ];
  const heading = `${paint(look, 'strong', plan.appliance)}  ${formatBytes(plan.addBytes)} to fetch`;
  if (items.length === 0) return `${heading}\nNothing is planned for it.`;
  return `${heading}\n${formatTable(
    items,
    [
      {
        head: '',
        cell: (row) => row.what,
        tone: (row) => (row.what === 'in' ? 'good' : row.what === 'out' ? 'warn' : 'dim'),
      },
      { head: 'rendition', cell: (row) => row.holding },
      { head: 'size', cell: (row) => formatBytes(row.bytes), align: 'right' },
      { head: 'why', cell: (row) => row.reason },
    ],
    look,
  )}`;
}

function takes({ addBytes, expectedMs }: FillPlan): string {
  if (addBytes === 0) return '–';
  return expectedMs === null ? 'unknown' : formatDuration(expectedMs);
}

const sumBytes = (items: readonly { readonly bytes: number }[]): number =>
  items.reduce((sum, item) => sum + item.bytes, 0);
