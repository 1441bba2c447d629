// Every way in which the response of an appliance may differ from nginx's, and why. A difference that no rule explains is a
// defect, and so is a rule that a long run does not need. decisions/0017 prints the table.

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

/** The first rule that explains the difference. */
export function ruleOf(difference: Difference): Rule | undefined {
  const view = viewOf(difference);
  return RULES.find(({ explains }) => explains(view));
}

/** The rules as a Markdown table. */
export function rulesTable(): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => (cell === '' ? '–' : cell.replaceAll('|', '\\|'))).join(' | ')} |`;
  return [
    line(['request', 'nginx', 'Larder', 'RFC', 'right']),
    line(['---', '---', '---', '---', '---']),
    ...RULES.map(({ request, nginx, larder, rfc, right }) => line([request, nginx, larder, rfc, right])),
  ].join('\n');
}
