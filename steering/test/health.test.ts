import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  afterProbe,
  EXPECTED_MS,
  isFrozen,
  judge,
  UNTRIED,
  type Condition,
  type ProbeResult,
  type Probing,
} from '../health.ts';

const well: Condition = {
  leaseLeftMs: 5000,
  url: 'http://a.example',
  probing: UNTRIED,
  state: 'serving',
  health: { level: 'green', causes: [] },
  drained: false,
  connections: 0,
  connectionsMax: 10,
};

const after = (...results: ProbeResult[]): Probing => results.reduce(afterProbe, UNTRIED);

describe('probes', () => {
  it.each<[string, ProbeResult[], Probing['standing']]>([
    ['a refusal is death at once', ['answered', 'refused'], 'refused'],
    ['one miss changes nothing', ['answered', 'missed'], 'ok'],
    ['two misses in a row are silence', ['answered', 'missed', 'missed'], 'silent'],
    ['misses with an answer between are none', ['missed', 'answered', 'missed'], 'ok'],
    ['one answer does not end silence', ['missed', 'missed', 'answered'], 'silent'],
    ['two answers do', ['missed', 'missed', 'answered', 'answered'], 'ok'],
    ['silence after a refusal is still a refusal', ['refused', 'missed', 'missed'], 'refused'],
    ['an answer ends a refusal', ['refused', 'answered'], 'ok'],
  ])('%s', (_, results, standing) => expect(after(...results).standing).toBe(standing));

  it('at the threshold flap no faster than every other probe', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom<ProbeResult>('answered', 'missed'), { maxLength: 100 }), (results) => {
        let state = UNTRIED;
        const seen: Probing['standing'][] = [];
        for (const result of results) seen.push((state = afterProbe(state, result)).standing);
        const turns = seen.filter(
          (standing, at) => at > 0 && (standing === 'silent') !== (seen[at - 1] === 'silent'),
        ).length;
        expect(turns).toBeLessThanOrEqual(results.length / 2);
      }),
    );
  });
});

describe('an appliance', () => {
  it.each<[string, Partial<Condition>, string, string | null, boolean]>([
    ['that is well', {}, 'alive', null, false],
    ['that fills', { state: 'filling' }, 'alive', null, false],
    ['that is yellow', { health: { level: 'yellow', causes: ['x'] } }, 'alive', null, false],
    ['whose lease ended', { leaseLeftMs: -1500 }, 'expired', 'its lease ended 2 s ago', true],
    ['that refuses', { probing: after('refused') }, 'refused', 'nobody listens at http://a.example', true],
    [
      'that is silent',
      { probing: after('missed', 'missed') },
      'alive',
      '2 probes of http://a.example in a row got no answer',
      true,
    ],
    ['that the operator drained', { drained: true }, 'alive', 'the operator drained it', true],
    ['that starts', { state: 'starting' }, 'alive', 'it says that it is starting', true],
    ['that drains itself', { state: 'draining' }, 'alive', 'it says that it is draining', true],
    ['that stopped', { state: 'stopped' }, 'alive', 'it says that it is stopped', true],
    ['that is red', { health: { level: 'red', causes: ['disk lost'] } }, 'alive', 'its health is red: disk lost', true],
    ['that is full', { connections: 10 }, 'alive', 'it is full: all of its 10 connections are taken', false],
  ])('%s', (_, given, liveness, refusal, leave) => {
    expect(judge({ ...well, ...given }, false)).toEqual({ liveness, refusal, leave });
  });

  it('in a frozen fleet is trusted without lease or answer, but not against a refusal', () => {
    expect(judge({ ...well, leaseLeftMs: -1, probing: after('missed', 'missed') }, true).refusal).toBeNull();
    expect(judge({ ...well, leaseLeftMs: -1, probing: after('refused') }, true).refusal).not.toBeNull();
    expect(judge({ ...well, leaseLeftMs: -1, drained: true }, true).refusal).not.toBeNull();
  });
});

describe('the fleet freezes', () => {
  const fleet = (
    alive: number,
    gone: number,
    probing: Probing,
    leaseLeftMs = -1,
  ): Pick<Condition, 'leaseLeftMs' | 'probing'>[] => [
    ...Array.from({ length: alive }, () => ({ leaseLeftMs: 1, probing: after('answered') })),
    ...Array.from({ length: gone }, () => ({ leaseLeftMs, probing })),
  ];
  const silent = after('missed', 'missed');

  it.each<[string, ReturnType<typeof fleet>, boolean]>([
    ['when more than 15 % of ten or more vanish in silence', fleet(8, 2, silent), true],
    ['not when 15 % do', fleet(17, 3, silent), false],
    ['not when fewer than ten are expected', fleet(0, 9, silent), false],
    ['not when probes still reach them: then they stopped beating', fleet(0, 20, after('answered')), false],
    ['not when they refuse: that is an answer', fleet(0, 20, after('refused')), false],
    ['not for ever: after an hour nobody expects them', fleet(0, 20, silent, -EXPECTED_MS - 1), false],
  ])('%s', (_, conditions, frozen) => expect(isFrozen(conditions)).toBe(frozen));
});
