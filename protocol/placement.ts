// Weighted rendezvous hashing: two components that order the same members for the same key agree without talking.
// Thaler & Ravishankar 1998; the weighted form −w / ln(u) after Schindelhauer & Schomaker 2005.

import { hash32 } from './hash.ts';

export interface Member {
  readonly id: string;
  /** Relative capacity, > 0. */
  readonly weight: number;
}

/** Members for `key`, best first. Removing one moves only its own keys. */
export function rendezvous<M extends Member>(key: string, members: readonly M[]): M[] {
  return members
    .map((member) => ({ member, score: score(key, member) }))
    .sort((a, b) => b.score - a.score || (a.member.id < b.member.id ? -1 : 1))
    .map((scored) => scored.member);
}

function score(key: string, member: Member): number {
  // u lies in (0, 1): the half step keeps the logarithm finite.
  const u = (hash32(`${member.id}\0${key}`) + 0.5) / 2 ** 32;
  return -member.weight / Math.log(u);
}
