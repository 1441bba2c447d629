// What an output stream can show: its width and whether it takes colour. Text is wrapped and coloured accordingly.

/** For pipes, log files and terminals of unknown width. */
const WIDTH_DEFAULT = 80;
const WIDTH_MIN = 40;
const WIDTH_MAX = 120;

export type Tone = 'good' | 'warn' | 'bad' | 'dim' | 'strong' | 'plain';

export interface TerminalStyle {
  readonly width: number;
  readonly color: boolean;
}

interface OutputStream {
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
}

/** A NO_COLOR that is set and not empty disables colour (https://no-color.org). */
export function terminalStyle(screen: OutputStream, env: Readonly<Record<string, string | undefined>>): TerminalStyle {
  const terminal = screen.isTTY === true;
  const columns = terminal ? (screen.columns ?? WIDTH_DEFAULT) : WIDTH_DEFAULT;
  return {
    width: Math.min(WIDTH_MAX, Math.max(WIDTH_MIN, columns)),
    color: terminal && (env['NO_COLOR'] ?? '') === '' && env['TERM'] !== 'dumb',
  };
}

const SGR_CODES: Readonly<Record<Tone, string>> = {
  good: '32',
  warn: '33',
  bad: '31',
  dim: '2',
  strong: '1',
  plain: '',
};

export function paint(style: TerminalStyle, tone: Tone, text: string): string {
  if (!style.color || tone === 'plain' || text === '') return text;
  return text
    .split('\n')
    .map((line) => `\u001b[${SGR_CODES[tone]}m${line}\u001b[0m`)
    .join('\n');
}

/** Breaks text at spaces into lines of at most `width` characters. A longer word is split. */
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
