// `larder fill plan`: what a run would fetch and remove now, per appliance. A dry run that changes nothing.

import type { Command } from 'commander';
import { planList } from '../../protocol/answers.ts';
import { Fault } from '../../protocol/faults.ts';
import type { FillPlan } from '../../protocol/plan.ts';
import { formatBytes } from '../../protocol/units.ts';
import { addFlags, CLIENT_TABLE, readFlags, type Verb } from '../../runtime/command.ts';
import { option } from '../../runtime/config.ts';
import { createControlClient } from '../control-client.ts';
import { printResult } from '../output.ts';
import { formatPlanItems, formatPlans } from '../plan-table.ts';
import type { TerminalStyle } from '../terminal.ts';

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
  const answer = await createControlClient(values).fill('/v1/plans', planList);
  if (values.appliance === null) return printResult(values, answer, (style) => describe(answer.plans, style));
  const plan = answer.plans.find((row) => row.appliance === values.appliance);
  if (plan === undefined) {
    const ids = answer.plans.map((row) => row.appliance).join(', ');
    throw new Fault('not_found', `no plan is made for "${values.appliance}"; there is one for ${ids || 'nobody'}`);
  }
  printResult(values, plan, (style) => formatPlanItems(plan, style));
}

function describe(plans: readonly FillPlan[], style: TerminalStyle): string {
  if (plans.length === 0) return 'No appliance to plan for: none has reported. See: larder appliance ls';
  const bytes = plans.reduce((sum, plan) => sum + plan.addBytes, 0);
  const summary =
    bytes === 0
      ? 'Nothing to fetch: every appliance holds its share.'
      : `${formatBytes(bytes)} to fetch. Now: larder fill run --now; tonight: larder fill run --wait`;
  return `${formatPlans(plans, style)}\n\n${summary}`;
}
