// Parses and formats sizes, durations and rates. 10GB is 10 · 10⁹ bytes, 10GiB is 10 · 2³⁰ bytes.

const SIZE_FACTORS: Record<string, number> = {
  '': 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  pb: 1e15,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
  pib: 2 ** 50,
};
const DURATION_FACTORS: Record<string, number> = { ms: 1, s: 1e3, m: 60e3, h: 3_600e3, d: 86_400e3 };
const RATE_FACTORS: Record<string, number> = { 'b/s': 1, 'kb/s': 1e3, 'mb/s': 1e6, 'gb/s': 1e9 };

/** Bytes of a size such as `512`, `64KiB` or `1.5TB`; null for any other text. */
export const parseSize = (text: string): number | null => parseUnit(text, SIZE_FACTORS);

/** Milliseconds of a duration such as `250ms`, `30s` or `4h`; null for any other text. The unit is required. */
export const parseDuration = (text: string): number | null => parseUnit(text, DURATION_FACTORS);

/** Bits per second of a rate such as `400Mb/s` or `1.2Gb/s`, where b is a bit; null for any other text. */
export const parseRate = (text: string): number | null => parseUnit(text, RATE_FACTORS);

export function formatBytes(bytes: number): string {
  return scaled(bytes, 1000, ['B', 'kB', 'MB', 'GB', 'TB', 'PB']);
}

export function formatRate(bitsPerSecond: number): string {
  return scaled(bitsPerSecond, 1000, ['b/s', 'kb/s', 'Mb/s', 'Gb/s', 'Tb/s']);
}

export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${String(seconds % 60).padStart(2, '0')} s`;
  if (seconds < 86_400)
    return `${Math.floor(seconds / 3600)} h ${String(Math.floor((seconds % 3600) / 60)).padStart(2, '0')} m`;
  return `${Math.floor(seconds / 86_400)} d ${String(Math.floor((seconds % 86_400) / 3600)).padStart(2, '0')} h`;
}

function parseUnit(text: string, factors: Record<string, number>): number | null {
  const match = /^(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z/]*)$/.exec(text.trim());
  if (match === null) return null;
  const factor = factors[match[2]!.toLowerCase()];
  if (factor === undefined) return null;
  const value = Math.round(Number(match[1]) * factor);
  return Number.isSafeInteger(value) ? value : null;
}

function scaled(value: number, step: number, units: readonly string[]): string {
  let at = 0;
  let left = value;
  while (left >= step && at < units.length - 1) {
    left /= step;
    at += 1;
  }
  const digits = at === 0 || left >= 100 ? 0 : left >= 10 ? 1 : 2;
  return `${left.toFixed(digits)} ${units[at]}`;
}
