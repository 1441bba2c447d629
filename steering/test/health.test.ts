import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  afterProbe,
  EXPECTED_MS,
  isFrozen,
  eligibilityOf,
  UNPROBED,
  type Condition,
  type ProbeResult,
  type ProbeState,
} from '../health.ts';

const healthy: Condition = {
  leaseLeftMs: 5000,
  url: 'http://a.example',
  probeState: UNPROBED,
  state: 'serving',
  health: { level: 'green', causes: [] },
  drained: false,
  connections: 0,
  connectionsMax: 10,
};

const after = (...results: ProbeResult[]): ProbeState => results.reduce(afterProbe, UNPROBED);

describe('probes', () => {
  it.each<[string, ProbeResult[], ProbeState['reachability']]>([
    ['one refusal suffices', ['answered', 'refused'], 'refused'],
    ['one miss changes nothing', ['answered', 'missed'], 'ok'],
    ['two misses in a row mean silence', ['answered', 'missed', 'missed'], 'silent'],
    ['misses with an answer in between do not add up', ['missed', 'answered', 'missed'], 'ok'],
    ['one answer does not end silence', ['missed', 'missed', 'answered'], 'silent'],
    ['two answers do', ['missed', 'missed', 'answered', 'answered'], 'ok'],
    ['misses after a refusal leave it a refusal', ['refused', 'missed', 'missed'], 'refused'],
    ['an answer ends a refusal', ['refused', 'answered'], 'ok'],
  ])('%s', (_, results, reachability) => expect(after(...results).reachability).toBe(reachability));

  it('change reachability at most with every other probe', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom<ProbeResult>('answered', 'missed'), { maxLength: 100 }), (results) => {
        let state = UNPROBED;
        const seen: ProbeState['reachability'][] = [];
        for (const result of results) seen.push((state = afterProbe(state, result)).reachability);
        const changes = seen.filter(
          (reachability, at) => at > 0 && (reachability === 'silent') !== (seen[at - 1] === 'silent'),
        ).length;
        expect(changes).toBeLessThanOrEqual(results.length / 2);
      }),
    );
  });
});

describe('an appliance', () => {
  it.each<[string, Partial<Condition>, string, string | null, boolean]>([
    ['that is healthy', {}, 'alive', null, false],
    ['that is filling', { state: 'filling' }, 'alive', null, false],
    ['whose health is yellow', { health: { level: 'yellow', causes: ['x'] } }, 'alive', null, false],
    ['whose lease expired', { leaseLeftMs: -1500 }, 'expired', 'its lease ended 2 s ago', true],
    [
      'that refuses connections',
      { probeState: after('refused') },
      'refused',
      'nobody listens at http://a.example',
      true,
    ],
    [
      'that is silent',
      { probeState: after('missed', 'missed') },
      'alive',
      '2 probes of http://a.example in a row got no answer',
      true,
    ],
    ['that the operator drained', { drained: true }, 'alive', 'the operator drained it', true],
    ['that is starting', { state: 'starting' }, 'alive', 'it says that it is starting', true],
    ['that is draining by itself', { state: 'draining' }, 'alive', 'it says that it is draining', true],
    ['that has stopped', { state: 'stopped' }, 'alive', 'it says that it is stopped', true],
    [
      'whose health is red',
      { health: { level: 'red', causes: ['disk lost'] } },
      'alive',
      'its health is red: disk lost',
      true,
    ],
    ['that is full', { connections: 10 }, 'alive', 'it is full: all of its 10 connections are taken', false],
  ])('%s', (_, fields, liveness, refusal, steerAway) => {
    expect(eligibilityOf({ ...healthy, ...fields }, false)).toEqual({ liveness, refusal, steerAway });
  });

  it('in a frozen fleet stays eligible without lease or answer, but not if it refuses connections or is drained', () => {
    expect(
      eligibilityOf({ ...healthy, leaseLeftMs: -1, probeState: after('missed', 'missed') }, true).refusal,
    ).toBeNull();
    expect(eligibilityOf({ ...healthy, leaseLeftMs: -1, probeState: after('refused') }, true).refusal).not.toBeNull();
    expect(eligibilityOf({ ...healthy, leaseLeftMs: -1, drained: true }, true).refusal).not.toBeNull();
  });
});

describe('the fleet freezes', () => {
  const fleet = (
    alive: number,
    gone: number,
    probeState: ProbeState,
    leaseLeftMs = -1,
  ): Pick<Condition, 'leaseLeftMs' | 'probeState'>[] => [
    ...Array.from({ length: alive }, () => ({ leaseLeftMs: 1, probeState: after('answered') })),
    ...Array.from({ length: gone }, () => ({ leaseLeftMs, probeState })),
  ];
  const silent = after('missed', 'missed');

  it.each<[string, ReturnType<typeof fleet>, boolean]>([
    ['when more than 15 % of ten or more vanish silently', fleet(8, 2, silent), true],
    ['not when just 15 % do', fleet(17, 3, silent), false],
    ['not when fewer than ten are expected', fleet(0, 9, silent), false],
    [
      'not when probes still get answers: the appliances only stopped sending heartbeats',
      fleet(0, 20, after('answered')),
      false,
    ],
    ['not when they refuse connections, because the network then works', fleet(0, 20, after('refused')), false],
    [
      'not for longer than an hour, after which they are no longer expected',
      fleet(0, 20, silent, -EXPECTED_MS - 1),
      false,
    ],
  ])('%s', (_, conditions, frozen) => expect(isFrozen(conditions)).toBe(frozen));
});
