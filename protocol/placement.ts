// Weighted rendezvous hashing: components that rank the same members for the same key agree without communicating.
// Thaler & Ravishankar 1998; the weighted form −w / ln(u) after Schindelhauer & Schomaker 2005.

import { hash32 } from './hash.ts';

interface Member {
  readonly id: string;
  /** Relative capacity, > 0. */
  readonly weight: number;
}

/** Members ranked for a key, best first. Removing a member moves only the keys of that member. */
export function rendezvous<M extends Member>(key: string, members: readonly M[]): M[] {
  return members
    .map((member) => ({ member, score: score(key, member) }))
    .sort((a, b) => b.score - a.score || (a.member.id < b.member.id ? -1 : 1))
    .map((scored) => scored.member);
}

function score(key: string, member: Member): number {
  // The half step keeps u inside (0, 1), where the logarithm is finite and not 0.
  const u = (hash32(`${member.id}\0${key}`) + 0.5) / 2 ** 32;
  return -member.weight / Math.log(u);
}
