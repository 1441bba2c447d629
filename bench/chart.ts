// Draws recorded results as one SVG chart: for each finding with a bar, Larder and its peers as horizontal lines, and a mark at the
// value that Larder must reach. The colours suit light and dark pages.

import { meetsBar, type Bar, type Finding, type BenchOutcome } from './bench.ts';
import { formatFigure } from './report.ts';

export interface RecordedResult extends BenchOutcome {
  readonly bench: string;
  readonly cpu: string;
  readonly node: string;
}

const WIDTH = 860;
const COLUMN_WIDTH = WIDTH / 2;
const LABEL_WIDTH = 164;
const BAR_WIDTH = COLUMN_WIDTH - LABEL_WIDTH - 80;
/** Approximate width of a name and a figure, which the mark must not cross. */
const TEXT_WIDTH = 70;
const SCALE_CUT = 2.5;
const LINE_HEIGHT = 10;
const ROW_GAP = 7;
const TITLE_HEIGHT = 24;
const FOOTER_HEIGHT = 22;

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

interface ChartLine {
  readonly name: string;
  readonly kind: 'own' | 'peer' | 'reference';
  readonly value: number;
}

interface DrawnElement {
  readonly svg: string;
  readonly height: number;
}

/** `results` are drawn in the given order. */
export function drawChart(results: readonly RecordedResult[]): string {
  const panels = results.map(drawPanel).filter(({ height }) => height > TITLE_HEIGHT);
  const columns = splitColumns(panels);
  const height =
    Math.max(...columns.map((column) => column.reduce((sum, each) => sum + each.height, 0))) + FOOTER_HEIGHT;
  const body = columns.map((column, at) => stackPanels(column, at * COLUMN_WIDTH)).join('');
  const machines = [...new Set(results.map(({ cpu, node }) => `${cpu}, Node ${node.replace('v', '')}`))];
  const foot = `one core each · ${machines.join(' and ')} · the mark is the target for Larder`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="Larder beside its peers">
<style>${STYLE}
</style>
${body}<text x="8" y="${height - 8}">${escapeXml(foot)}</text>
</svg>
`;
}

/** Keeps the order of the panels: the first ones go left until half of the height is used. */
function splitColumns(panels: readonly DrawnElement[]): [DrawnElement[], DrawnElement[]] {
  const total = panels.reduce((sum, { height }) => sum + height, 0);
  const columns: [DrawnElement[], DrawnElement[]] = [[], []];
  let used = 0;
  for (const each of panels) {
    columns[used + each.height / 2 <= total / 2 ? 0 : 1].push(each);
    used += each.height;
  }
  return columns;
}

function stackPanels(column: readonly DrawnElement[], x: number): string {
  let y = 0;
  return column
    .map(({ svg, height }) => {
      const placed = `<g transform="translate(${x} ${y})">\n${svg}</g>\n`;
      y += height;
      return placed;
    })
    .join('');
}

function drawPanel(result: RecordedResult): DrawnElement {
  let svg = `<text class="title" x="8" y="16">${escapeXml(result.bench)}</text>\n`;
  let y = TITLE_HEIGHT;
  for (const finding of result.findings) {
    if (finding.bar === null) continue;
    const row = drawRow(finding, finding.bar, chartLines(result, finding));
    svg += `<g transform="translate(0 ${y})">\n${row.svg}</g>\n`;
    y += row.height;
  }
  return { svg, height: y };
}

function chartLines({ peers }: RecordedResult, finding: Finding): ChartLine[] {
  const beside = peers.flatMap(({ name, role }, at): ChartLine[] => {
    const value = finding.peers[at] ?? null;
    return value === null ? [] : [{ name, kind: role === 'cache' ? 'peer' : 'reference', value }];
  });
  return [{ name: 'larder', kind: 'own', value: finding.larder }, ...beside];
}

function drawRow(finding: Finding, bar: Bar, lines: readonly ChartLine[]): DrawnElement {
  const mark = markValue(finding, bar);
  const most = scaleMaximum(mark, lines);
  const width = (value: number): number => Math.max(1, (Math.min(most, Math.max(0, value)) / most) * BAR_WIDTH);
  const drawn = lines.map(({ name, kind, value }, at) => {
    const y = at * LINE_HEIGHT;
    const text = `${name} ${formatFigure(value)}${value > most ? ' »' : ''}`;
    const end = width(value);
    const crossed = kind === 'own' && width(mark) >= end && width(mark) < end + TEXT_WIDTH;
    const textX = LABEL_WIDTH + (crossed ? width(mark) : end) + 5;
    return `<rect class="${kind}" x="${LABEL_WIDTH}" y="${y}" width="${end.toFixed(1)}" height="${LINE_HEIGHT - 2}" rx="1"/>
<text class="value${kind === 'own' ? ' strong' : ''}" x="${textX.toFixed(1)}" y="${y + 7.5}">${escapeXml(text)}</text>\n`;
  });
  const height = lines.length * LINE_HEIGHT;
  const x = (LABEL_WIDTH + width(mark)).toFixed(1);
  const line = `<line class="${meetsBar(finding) ? 'met' : 'missed'}" x1="${x}" x2="${x}" y1="-1.5" y2="${LINE_HEIGHT - 0.5}" stroke-width="2"/>\n`;
  const label = `<text x="${LABEL_WIDTH - 8}" y="8" text-anchor="end">${escapeXml(finding.what)}</text>\n`;
  const unit = `<text class="value" x="${LABEL_WIDTH - 8}" y="18" text-anchor="end">${escapeXml(finding.unit)}</text>\n`;
  return { svg: label + unit + drawn.join('') + line, height: Math.max(height, 2 * LINE_HEIGHT) + ROW_GAP };
}

/** The value at full width. A peer far beyond Larder and its bar is cut off, because it would dwarf the others. */
function scaleMaximum(mark: number, lines: readonly ChartLine[]): number {
  const longest = Math.max(mark, ...lines.map(({ value }) => value));
  const own = Math.max(mark, lines[0]!.value);
  return longest > own * SCALE_CUT ? own * SCALE_CUT : longest;
}

/** The value that Larder must reach, or not exceed, in the unit of the finding. */
const markValue = ({ larder, ratio }: Finding, bar: Bar): number =>
  bar.of === 'larder' || ratio === null ? bar.value : (larder / ratio) * bar.value;

const escapeXml = (text: string): string => text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
