// Progress on stderr. A terminal shows bars with bytes, rate and time left, one per row; a pipe gets a plain line at most every
// second, because cli-progress prints nothing without a terminal.

import { MultiBar, type SingleBar } from 'cli-progress';
import { formatBytes, formatDuration, formatRate } from '../protocol/units.ts';
import { systemClock } from '../runtime/clock.ts';
import { terminalStyle, paint, type TerminalStyle } from './terminal.ts';

export interface ProgressRow {
  readonly name: string;
  readonly done: number;
  readonly total: number;
  readonly bytesPerSecond: number | null;
  /** State of the row, such as `waiting`. It replaces rate and time left. */
  readonly note?: string;
}

export interface Progress {
  /** The first row is the total, which is all that a pipe gets; the other rows are its parts. */
  show(rows: readonly ProgressRow[]): void;
  stop(): void;
}

const ROWS_MAX = 12;
const LINE_INTERVAL_MS = 1_000;

export const SILENT_PROGRESS: Progress = { show: () => undefined, stop: () => undefined };

export function createProgress(stream: NodeJS.WriteStream = process.stderr): Progress {
  const style = terminalStyle(stream, process.env);
  return stream.isTTY ? createBars(stream, style) : createLines(stream);
}

function createBars(stream: NodeJS.WriteStream, style: TerminalStyle): Progress {
  const multi = new MultiBar({
    stream,
    hideCursor: true,
    clearOnComplete: false,
    emptyOnZero: true,
    fps: 12,
    format: (_options, params, payload) =>
      formatBar(payload as ProgressRow, params.progress, style, payload['nameWidth'] as number),
  });
  const shown: SingleBar[] = [];
  return {
    show: (rows) => {
      const visible = rows.slice(0, ROWS_MAX);
      const nameWidth = Math.min(24, Math.max(...visible.map((row) => row.name.length)));
      for (const [at, row] of visible.entries()) {
        // cli-progress merges payloads, so a note must be reset explicitly.
        const payload = { ...row, note: row.note, nameWidth };
        const bar = (shown[at] ??= multi.create(Math.max(1, row.total), 0, payload));
        bar.setTotal(Math.max(1, row.total));
        // A row without bytes ends as a full bar.
        bar.update(row.total === 0 ? Number(row.note === 'done') : Math.min(row.done, row.total), payload);
      }
    },
    stop: () => {
      multi.update();
      multi.stop();
    },
  };
}

/** `north-1   ━━━━━━━━━━──────   45 %  5.4 of 12.0 MB  38.1 Mb/s  12 s left` in `style.width` columns. */
export function formatBar(row: ProgressRow, share: number, style: TerminalStyle, nameWidth: number): string {
  const name = row.name.slice(0, nameWidth).padEnd(nameWidth);
  const percent = `${Math.floor(share * 100)} %`.padStart(5);
  const tail = `${percent}  ${formatAmounts(row).padStart(17)}  ${formatPace(row)}`;
  const room = Math.max(8, Math.min(40, style.width - nameWidth - 2 - 55));
  const full = Math.round(share * room);
  return `${name}  ${paint(style, 'good', '━'.repeat(full))}${paint(style, 'dim', '─'.repeat(room - full))} ${tail}`;
}

function createLines(stream: NodeJS.WriteStream): Progress {
  let writtenAtMs = Number.NEGATIVE_INFINITY;
  let last = '';
  let pending = '';
  const write = (line: string): void => {
    stream.write(`${line}\n`);
    last = line;
    writtenAtMs = systemClock.monotonic();
    pending = '';
  };
  return {
    show: (rows) => {
      const line = formatLine(rows[0]!);
      if (line === last) return;
      if (systemClock.monotonic() - writtenAtMs >= LINE_INTERVAL_MS) write(line);
      else pending = line;
    },
    // The last state is always written, however soon after the previous line.
    stop: () => {
      if (pending !== '' && pending !== last) write(pending);
    },
  };
}

/** `fill 20: 5.4 of 12.0 MB, 45 %, 38.1 Mb/s, 12 s left`. */
export function formatLine(row: ProgressRow): string {
  const share = row.total === 0 ? [] : [`${Math.floor((row.done / row.total) * 100)} %`];
  const parts = [formatAmounts(row), ...share, ...formatPace(row).split('  ')].filter((part) => part !== '');
  return `${row.name}: ${parts.join(', ')}`;
}

function formatAmounts(row: ProgressRow): string {
  if (row.total === 0) return '';
  const total = formatBytes(row.total);
  const unit = total.split(' ')[1]!;
  const done = formatBytes(row.done);
  return `${done.endsWith(` ${unit}`) ? done.slice(0, -unit.length - 1) : done} of ${total}`;
}

function formatPace(row: ProgressRow): string {
  if (row.note !== undefined) return row.note;
  if (row.bytesPerSecond === null || row.bytesPerSecond <= 0) return '';
  const left = ((row.total - row.done) / row.bytesPerSecond) * 1000;
  return `${formatRate(row.bytesPerSecond * 8)}  ${formatDuration(left)} left`;
}

/** Bytes per second over the last 5 s: steady enough to read, and recent enough to be accurate. */
export class RateMeter {
  static readonly WINDOW_MS = 5_000;
  readonly #samples: { readonly atMs: number; readonly bytes: number }[] = [];

  /** Returns the rate, or null while the samples span less than 200 ms. */
  record(atMs: number, bytes: number): number | null {
    this.#samples.push({ atMs, bytes });
    while (this.#samples.length > 2 && this.#samples[0]!.atMs < atMs - RateMeter.WINDOW_MS) this.#samples.shift();
    const first = this.#samples[0]!;
    return atMs - first.atMs < 200 ? null : ((bytes - first.bytes) * 1000) / (atMs - first.atMs);
  }
}
