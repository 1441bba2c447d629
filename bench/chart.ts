// The kept results as one picture: a row per finding that has a bar, Larder first, its peers below, and a mark where the
// bar stands. Only the last result of each bench counts. Plain SVG that reads on a light page and on a dark one.

import { meetsBar, type Bar, type Finding, type Outcome } from './bench.ts';
import { figure } from './render.ts';

export interface Kept extends Outcome {
  readonly bench: string;
  readonly cpu: string;
  readonly node: string;
}

const WIDTH = 860;
const COLUMN = WIDTH / 2;
const LABEL = 164;
const BARS = COLUMN - LABEL - 80;
/** About what a name and a figure take, so that the mark does not cross them. */
const TEXT = 70;
const CUT = 2.5;
const LINE = 10;
const ROW_GAP = 7;
const TITLE = 24;
const FOOT = 22;

const STYLE = `
text { font: 10px system-ui, -apple-system, 'Segoe UI', sans-serif; fill: #57606a }
.title { font-weight: 600; font-size: 12px; fill: #1f2328 }
.own { fill: #1a7fd4 } .peer { fill: #afb8c1 } .reference { fill: #d8dee4 }
.value { font-size: 9px } .strong { font-weight: 600; fill: #1f2328 }
.met { stroke: #1a7f37 } .missed { stroke: #cf222e }
@media (prefers-color-scheme: dark) {
  text { fill: #9198a1 } .title, .strong { fill: #f0f6fc }
  .own { fill: #388bfd } .peer { fill: #6e7681 } .reference { fill: #3d444d }
  .met { stroke: #3fb950 } .missed { stroke: #f85149 }
}`;

interface Line {
  readonly name: string;
  readonly kind: 'own' | 'peer' | 'reference';
  readonly value: number;
}

interface Drawn {
  readonly svg: string;
  readonly height: number;
}

/** Results in the order in which their benches are to stand. */
export function chart(results: readonly Kept[]): string {
  const panels = results.map(panel).filter(({ height }) => height > TITLE);
  const columns = split(panels);
  const height = Math.max(...columns.map((column) => column.reduce((sum, each) => sum + each.height, 0))) + FOOT;
  const body = columns.map((column, at) => stack(column, at * COLUMN)).join('');
  const { cpu, node } = results.at(-1)!;
  const foot = `one core against one core · ${cpu} · Node ${node.replace('v', '')} · the mark is where Larder must be`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="Larder beside its peers">
<style>${STYLE}
</style>
${body}<text x="8" y="${height - 8}">${escaped(foot)}</text>
</svg>
`;
}

/** Panels stay in order: the first ones left, until half of the height is used. */
function split(panels: readonly Drawn[]): [Drawn[], Drawn[]] {
  const total = panels.reduce((sum, { height }) => sum + height, 0);
  const columns: [Drawn[], Drawn[]] = [[], []];
  let used = 0;
  for (const each of panels) {
    columns[used + each.height / 2 <= total / 2 ? 0 : 1].push(each);
    used += each.height;
  }
  return columns;
}

function stack(column: readonly Drawn[], x: number): string {
  let y = 0;
  return column
    .map(({ svg, height }) => {
      const placed = `<g transform="translate(${x} ${y})">\n${svg}</g>\n`;
      y += height;
      return placed;
    })
    .join('');
}

function panel(result: Kept): Drawn {
  let svg = `<text class="title" x="8" y="16">${escaped(result.bench)}</text>\n`;
  let y = TITLE;
  for (const finding of result.findings) {
    if (finding.bar === null) continue;
    const row = drawRow(finding, finding.bar, linesOf(result, finding));
    svg += `<g transform="translate(0 ${y})">\n${row.svg}</g>\n`;
    y += row.height;
  }
  return { svg, height: y };
}

function linesOf({ peers }: Kept, finding: Finding): Line[] {
  const beside = peers.flatMap(({ name, role }, at): Line[] => {
    const value = finding.peers[at] ?? null;
    return value === null ? [] : [{ name, kind: role === 'cache' ? 'peer' : 'reference', value }];
  });
  return [{ name: 'larder', kind: 'own', value: finding.larder }, ...beside];
}

function drawRow(finding: Finding, bar: Bar, lines: readonly Line[]): Drawn {
  const mark = markOf(finding, bar);
  const most = scaleOf(mark, lines);
  const width = (value: number): number => Math.max(1, (Math.min(most, Math.max(0, value)) / most) * BARS);
  const drawn = lines.map(({ name, kind, value }, at) => {
    const y = at * LINE;
    const text = `${name} ${figure(value)}${value > most ? ' »' : ''}`;
    const end = width(value);
    const crossed = kind === 'own' && width(mark) >= end && width(mark) < end + TEXT;
    const textX = LABEL + (crossed ? width(mark) : end) + 5;
    return `<rect class="${kind}" x="${LABEL}" y="${y}" width="${end.toFixed(1)}" height="${LINE - 2}" rx="1"/>
<text class="value${kind === 'own' ? ' strong' : ''}" x="${textX.toFixed(1)}" y="${y + 7.5}">${escaped(text)}</text>\n`;
  });
  const height = lines.length * LINE;
  const x = (LABEL + width(mark)).toFixed(1);
  const line = `<line class="${meetsBar(finding) ? 'met' : 'missed'}" x1="${x}" x2="${x}" y1="-1.5" y2="${LINE - 0.5}" stroke-width="2"/>\n`;
  const label = `<text x="${LABEL - 8}" y="8" text-anchor="end">${escaped(finding.what)}</text>\n`;
  const unit = `<text class="value" x="${LABEL - 8}" y="18" text-anchor="end">${escaped(finding.unit)}</text>\n`;
  return { svg: label + unit + drawn.join('') + line, height: Math.max(height, 2 * LINE) + ROW_GAP };
}

/** A peer far beyond Larder and its bar is cut off there, and says so: else nothing else would be seen. */
function scaleOf(mark: number, lines: readonly Line[]): number {
  const longest = Math.max(mark, ...lines.map(({ value }) => value));
  const own = Math.max(mark, lines[0]!.value);
  return longest > own * CUT ? own * CUT : longest;
}

/** In the finding's unit: what Larder must reach, or stay below. */
const markOf = ({ larder, ratio }: Finding, bar: Bar): number =>
  bar.of === 'larder' || ratio === null ? bar.value : (larder / ratio) * bar.value;

const escaped = (text: string): string => text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
