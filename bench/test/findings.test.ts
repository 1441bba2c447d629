// What a bench makes of its samples, and how a person sees it.

import { XMLValidator } from 'fast-xml-parser';
import { describe, expect, it } from 'vitest';
import { alone, atLeast, atMost, compare, interleave, meetsBar, quantile, type Bench, type Peer } from '../bench.ts';
import { chart } from '../chart.ts';
import { figure, render } from '../render.ts';

const peers: readonly Peer[] = [
  { name: 'nginx', role: 'cache', configuration: '' },
  { name: 'varnish', role: 'cache', configuration: '' },
  { name: 'static', role: 'reference', configuration: '' },
];
const samples = new Map([
  ['larder', [110, 120, 330]],
  ['nginx', [100, 100, 300]],
  ['varnish', [90, 80, 500]],
  ['static', [900, 900, 900]],
]);
const compared = (better: 'more' | 'less', bar = atLeast(1.05)): ReturnType<typeof compare> =>
  compare({ what: '64 KiB', unit: 'req/s', better, samples, peers, bar });

describe('a comparison', () => {
  it('is with the cache whose median is best, pair by pair, and not with what is no cache', () => {
    expect(compared('more')).toMatchObject({ larder: 120, peers: [100, 90, 900], ratio: 1.1 });
    expect(compared('less').ratio).toBe(110 / 90);
  });

  it('is judged by its bar, whichever side is good', () => {
    expect(meetsBar(compared('more', atLeast(1.1)))).toBe(true);
    expect(meetsBar(compared('more', atLeast(1.11)))).toBe(false);
    expect(meetsBar(compared('less', atMost(1.2)))).toBe(false);
    expect(meetsBar(alone('ready', 's', 0.9, 1))).toBe(true);
    expect(meetsBar(alone('ready', 's', 1.1, 1))).toBe(false);
    expect(meetsBar(alone('ready', 's', Number.NaN, 1))).toBe(false);
  });

  it('takes its samples in turn', async () => {
    const seen: string[] = [];
    await interleave({ rounds: 2, contestants: [{ name: 'a' }, { name: 'b' }], say: () => undefined }, async (each) =>
      seen.push(each.name),
    );
    expect(seen).toEqual(['a', 'b', 'a', 'b']);
  });

  it('knows a quantile between two values', () => {
    expect(quantile([4, 1, 3, 2], 0.5)).toBe(2.5);
    expect(quantile([1, 2, 3], 1)).toBe(3);
    expect(quantile([], 0.5)).toBeNaN();
  });
});

describe('what a person sees', () => {
  const outcome = {
    peers,
    findings: [
      {
        ...compared('more'),
        what: 'readers on time',
        larder: 123_456,
        peers: [123_456, 98_765, 111_111],
      },
      { ...alone('p99 at the rate', 'ms', 71.25, 75), peers: [71.6, 2_000, null] },
    ],
    notes: [`A note ${'of many words '.repeat(20)}to its end.`],
  };

  it('fits a terminal of 80 columns, and says which bar is met', () => {
    const text = render({ question: 'how fast?' } as Bench, outcome);
    expect(Math.max(...text.split('\n').map((line) => line.length))).toBeLessThanOrEqual(80);
    expect(text).toContain('≥ 1.05 ✓');
    expect(text).toContain('≤ 75 ✓');
    expect(text).toMatch(/to its\s+end\.\n$/);
  });

  it('shows three digits that matter', () => {
    expect([1.234, 12.34, 123.4, 123_456, 2].map(figure)).toEqual(['1.23', '12.3', '123', '123,456', '2']);
    expect(figure(null)).toBe('');
  });

  it('is a well-formed chart without findings that have no bar', () => {
    const open = { ...alone('nobody <at all>', 'MB', 249, null), peers: [27, 97, null] };
    const svg = chart([
      { ...outcome, findings: [...outcome.findings, open], bench: 'serve', cpu: 'a & b', node: 'v20' },
    ]);
    expect(XMLValidator.validate(svg)).toBe(true);
    expect(svg).toContain('larder 71.3');
    expect(svg).not.toContain('nobody');
    expect(svg.match(/class="met"/g)).toHaveLength(2);
  });
});
