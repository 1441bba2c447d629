// Every way in which an appliance may answer differently from nginx, and why. A difference that none of these explains is a
// defect of one of the two, and a rule that a long run never needs is one of this table. decisions/0017 prints it.

import type { Difference } from './compare.ts';
import { CONDITION_RULES } from './rules-conditions.ts';
import { CONNECTION_RULES } from './rules-connections.ts';
import { FIELD_RULES } from './rules-fields.ts';
import { MESSAGE_RULES, TARGET_RULES } from './rules-messages.ts';
import { RANGE_RULES } from './rules-ranges.ts';
import { viewOf, type Rule } from './view.ts';

export const RULES: readonly Rule[] = [
  ...RANGE_RULES,
  ...CONDITION_RULES,
  ...TARGET_RULES,
  ...MESSAGE_RULES,
  ...CONNECTION_RULES,
  ...FIELD_RULES,
];

/** The first that explains it. */
export function ruleOf(difference: Difference): Rule | undefined {
  const view = viewOf(difference);
  return RULES.find(({ explains }) => explains(view));
}

/** As a table for people. */
export function table(): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => (cell === '' ? '–' : cell.replaceAll('|', '\\|'))).join(' | ')} |`;
  return [
    line(['asked', 'nginx', 'Larder', 'RFC', 'right']),
    line(['---', '---', '---', '---', '---']),
    ...RULES.map(({ asked, nginx, larder, rfc, right }) => line([asked, nginx, larder, rfc, right])),
  ].join('\n');
}
