// From samples to findings, and their table and chart.

import { XMLValidator } from 'fast-xml-parser';
import { describe, expect, it } from 'vitest';
import {
  absolute,
  ratioAtLeast,
  ratioAtMost,
  compareWithPeers,
  interleave,
  meetsBar,
  quantile,
  type Bench,
  type Peer,
} from '../bench.ts';
import { drawChart } from '../chart.ts';
import { formatFigure, formatOutcome } from '../report.ts';

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
const compared = (better: 'more' | 'less', bar = ratioAtLeast(1.05)): ReturnType<typeof compareWithPeers> =>
  compareWithPeers({ what: '64 KiB', unit: 'req/s', better, samples, peers, bar });

describe('a comparison', () => {
  it('is with the cache that has the best median, round by round, and not with a reference', () => {
    expect(compared('more')).toMatchObject({ larder: 120, peers: [100, 90, 900], ratio: 1.1 });
    expect(compared('less').ratio).toBe(110 / 90);
  });

  it('is judged by its bar, for figures of which more is better and of which less is better', () => {
    expect(meetsBar(compared('more', ratioAtLeast(1.1)))).toBe(true);
    expect(meetsBar(compared('more', ratioAtLeast(1.11)))).toBe(false);
    expect(meetsBar(compared('less', ratioAtMost(1.2)))).toBe(false);
    expect(meetsBar(absolute('ready', 's', 0.9, 1))).toBe(true);
    expect(meetsBar(absolute('ready', 's', 1.1, 1))).toBe(false);
    expect(meetsBar(absolute('ready', 's', Number.NaN, 1))).toBe(false);
  });

  it('measures the contestants in turn', async () => {
    const seen: string[] = [];
    await interleave({ rounds: 2, contestants: [{ name: 'a' }, { name: 'b' }], log: () => undefined }, async (each) =>
      seen.push(each.name),
    );
    expect(seen).toEqual(['a', 'b', 'a', 'b']);
  });

  it('interpolates a quantile between two values', () => {
    expect(quantile([4, 1, 3, 2], 0.5)).toBe(2.5);
    expect(quantile([1, 2, 3], 1)).toBe(3);
    expect(quantile([], 0.5)).toBeNaN();
  });
});

describe('the output', () => {
  const outcome = {
    peers,
    findings: [
      {
        ...compared('more'),
        what: 'clients on time',
        larder: 123_456,
        peers: [123_456, 98_765, 111_111],
      },
      { ...absolute('p99 at 70 % load', 'ms', 71.25, 75), peers: [71.6, 2_000, null] },
    ],
    notes: [`A note ${'of many words '.repeat(20)}to its end.`],
  };

  it('fits a terminal of 80 columns, and shows which bars are met', () => {
    const text = formatOutcome({ question: 'how fast?' } as Bench, outcome);
    expect(Math.max(...text.split('\n').map((line) => line.length))).toBeLessThanOrEqual(80);
    expect(text).toContain('≥ 1.05 ✓');
    expect(text).toContain('≤ 75 ✓');
    expect(text).toMatch(/to its\s+end\.\n$/);
  });

  it('shows three significant digits', () => {
    expect([1.234, 12.34, 123.4, 123_456, 2].map(formatFigure)).toEqual(['1.23', '12.3', '123', '123,456', '2']);
    expect(formatFigure(null)).toBe('');
  });

  it('is a well-formed chart of the findings with a bar', () => {
    const open = { ...absolute('no <connections>', 'MB', 249, null), peers: [27, 97, null] };
    const svg = drawChart([
      { ...outcome, findings: [...outcome.findings, open], bench: 'serve', cpu: 'a & b', node: 'v20' },
    ]);
    expect(XMLValidator.validate(svg)).toBe(true);
    expect(svg).toContain('larder 71.3');
    expect(svg).not.toContain('no &lt;connections');
    expect(svg.match(/class="met"/g)).toHaveLength(2);
  });
});
