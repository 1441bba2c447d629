// What a person's terminal can show: its width, whether colour is welcome, and how text is wrapped and painted for it.

/** A pipe, a log file and an unknown terminal read well at this width. */
export const WIDTH_DEFAULT = 80;
const WIDTH_MIN = 40;
const WIDTH_MAX = 120;

export type Tone = 'good' | 'warn' | 'bad' | 'dim' | 'strong' | 'plain';

export interface Look {
  readonly width: number;
  readonly color: boolean;
}

interface Screen {
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
}

/** https://no-color.org: NO_COLOR, set and not empty, forbids colour everywhere. */
export function lookOf(screen: Screen, env: Readonly<Record<string, string | undefined>>): Look {
  const terminal = screen.isTTY === true;
  const columns = terminal ? (screen.columns ?? WIDTH_DEFAULT) : WIDTH_DEFAULT;
  return {
    width: Math.min(WIDTH_MAX, Math.max(WIDTH_MIN, columns)),
    color: terminal && (env['NO_COLOR'] ?? '') === '' && env['TERM'] !== 'dumb',
  };
}

const CODES: Readonly<Record<Tone, string>> = { good: '32', warn: '33', bad: '31', dim: '2', strong: '1', plain: '' };

export function paint(look: Look, tone: Tone, text: string): string {
  if (!look.color || tone === 'plain' || text === '') return text;
  return text
    .split('\n')
    .map((line) => `\u001b[${CODES[tone]}m${line}\u001b[0m`)
    .join('\n');
}

/** Lines of at most `width` characters, broken at spaces; a longer word is cut, so that nothing is lost. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const paragraph of text.split('\n')) {
    let line = '';
    for (let word of paragraph.split(' ')) {
      if (line !== '' && line.length + 1 + word.length > width) {
        lines.push(line);
        line = '';
      }
      while (word.length > width) {
        lines.push(word.slice(0, width));
        word = word.slice(width);
      }
      line = line === '' ? word : `${line} ${word}`;
    }
    lines.push(line);
  }
  return lines;
}
