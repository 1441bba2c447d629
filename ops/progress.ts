// Progress on stderr: bars with bytes, rate and time left in a terminal, a plain line now and then in a pipe (cli-progress
// prints nothing without a terminal). One row per thing under way.

import { MultiBar, type SingleBar } from 'cli-progress';
import { formatBytes, formatDuration, formatRate } from '../protocol/units.ts';
import { lookOf, paint, type Look } from './terminal.ts';

export interface ProgressRow {
  readonly name: string;
  readonly done: number;
  readonly total: number;
  readonly bytesPerSecond: number | null;
  /** A word for the row's state, such as `waiting`; replaces rate and time left. */
  readonly note?: string;
}

export interface Progress {
  /** The first row is the one that a pipe reads; the others are its parts. */
  show(rows: readonly ProgressRow[]): void;
  stop(): void;
}

export const ROWS_MAX = 12;
const LINE_EVERY_MS = 1_000;

export function createProgress(stream: NodeJS.WriteStream = process.stderr): Progress {
  const look = lookOf(stream, process.env);
  return stream.isTTY ? bars(stream, look) : lines(stream);
}

function bars(stream: NodeJS.WriteStream, look: Look): Progress {
  const multi = new MultiBar({
    stream,
    hideCursor: true,
    clearOnComplete: false,
    emptyOnZero: true,
    fps: 12,
    format: (_options, params, payload) =>
      formatBar(payload as ProgressRow, params.progress, look, payload['nameWidth'] as number),
  });
  const shown: SingleBar[] = [];
  return {
    show: (rows) => {
      const visible = rows.slice(0, ROWS_MAX);
      const nameWidth = Math.min(24, Math.max(...visible.map((row) => row.name.length)));
      for (const [at, row] of visible.entries()) {
        // The bar merges payloads: a note that is over must be taken back by name.
        const payload = { ...row, note: row.note, nameWidth };
        const bar = (shown[at] ??= multi.create(Math.max(1, row.total), 0, payload));
        bar.setTotal(Math.max(1, row.total));
        // Nothing to do is done, too: an empty row ends full.
        bar.update(row.total === 0 ? Number(row.note === 'done') : Math.min(row.done, row.total), payload);
      }
    },
    stop: () => {
      multi.update();
      multi.stop();
    },
  };
}

/** `north-1   ━━━━━━━━━━──────   45 %  5.4 of 12.0 MB  38.1 Mb/s  12 s left` in `look.width` columns. */
export function formatBar(row: ProgressRow, share: number, look: Look, nameWidth: number): string {
  const name = row.name.slice(0, nameWidth).padEnd(nameWidth);
  const percent = `${Math.floor(share * 100)} %`.padStart(5);
  const tail = `${percent}  ${amounts(row).padStart(17)}  ${pace(row)}`;
  const room = Math.max(8, Math.min(40, look.width - nameWidth - 2 - 55));
  const full = Math.round(share * room);
  return `${name}  ${paint(look, 'good', '━'.repeat(full))}${paint(look, 'dim', '─'.repeat(room - full))} ${tail}`;
}

function lines(stream: NodeJS.WriteStream): Progress {
  let saidAt = Number.NEGATIVE_INFINITY;
  let last = '';
  let pending = '';
  const write = (line: string): void => {
    stream.write(`${line}\n`);
    last = line;
    saidAt = performance.now();
    pending = '';
  };
  return {
    show: (rows) => {
      const line = formatLine(rows[0]!);
      if (line === last) return;
      if (performance.now() - saidAt >= LINE_EVERY_MS) write(line);
      else pending = line;
    },
    // The end is always told, however soon it came after the line before.
    stop: () => {
      if (pending !== '' && pending !== last) write(pending);
    },
  };
}

/** `fill 20: 5.4 of 12.0 MB, 45 %, 38.1 Mb/s, 12 s left`. */
export function formatLine(row: ProgressRow): string {
  const share = row.total === 0 ? [] : [`${Math.floor((row.done / row.total) * 100)} %`];
  const parts = [amounts(row), ...share, ...pace(row).split('  ')].filter((part) => part !== '');
  return `${row.name}: ${parts.join(', ')}`;
}

function amounts(row: ProgressRow): string {
  if (row.total === 0) return '';
  const total = formatBytes(row.total);
  const unit = total.split(' ')[1]!;
  const done = formatBytes(row.done);
  return `${done.endsWith(` ${unit}`) ? done.slice(0, -unit.length - 1) : done} of ${total}`;
}

function pace(row: ProgressRow): string {
  if (row.note !== undefined) return row.note;
  if (row.bytesPerSecond === null || row.bytesPerSecond <= 0) return '';
  const left = ((row.total - row.done) / row.bytesPerSecond) * 1000;
  return `${formatRate(row.bytesPerSecond * 8)}  ${formatDuration(left)} left`;
}

/** Bytes per second over the last few looks: steady enough to read, quick enough to be true. */
export class RateMeter {
  static readonly WINDOW_MS = 5_000;
  readonly #seen: { readonly atMs: number; readonly bytes: number }[] = [];

  note(atMs: number, bytes: number): number | null {
    this.#seen.push({ atMs, bytes });
    while (this.#seen.length > 2 && this.#seen[0]!.atMs < atMs - RateMeter.WINDOW_MS) this.#seen.shift();
    const first = this.#seen[0]!;
    return atMs - first.atMs < 200 ? null : ((bytes - first.bytes) * 1000) / (atMs - first.atMs);
  }
}
