// What both kinds of playlist need: keys, references, and the playlist library behind the line check.

import HLS from 'hls-parser';
import { quoted, readAttributes, required, shaped, type Attributes, type Line } from './hls-lines.ts';
import { complain, resolveName, type Ground, type Place, type Reference } from './manifest.ts';

const METHODS = /^(NONE|AES-128|SAMPLE-AES|SAMPLE-AES-CTR)$/;

/**
 * The key file, where it is an asset of the title. A key for a DRM system, or one that a key server on another host hands
 * out, is carried unchanged: players ask for it themselves.
 */
export function readKey(line: Line, path: string, ground: Ground): Reference[] {
  const attributes: Attributes = readAttributes(line);
  const method = required(
    line,
    'METHOD',
    shaped(line, attributes, 'METHOD', METHODS, 'NONE, AES-128, SAMPLE-AES or SAMPLE-AES-CTR'),
  );
  shaped(line, attributes, 'IV', /^0[xX][0-9A-Fa-f]{1,32}$/, '0x and up to 32 hexadecimal digits');
  const uri = quoted(line, attributes, 'URI');
  if (method === 'NONE') {
    if (uri !== null) throw complain(line.place, `#${line.tag}: METHOD=NONE has no URI`);
    return [];
  }
  const name = required(line, 'URI', uri);
  const format = quoted(line, attributes, 'KEYFORMAT') ?? 'identity';
  if (format !== 'identity' || /^[A-Za-z][A-Za-z0-9+.-]*:/.test(name)) return [];
  return [reference(resolveName(name, path, ground, line.place), line.place)];
}

export const reference = (path: string, place: Place): Reference => ({ path, place, endBytes: null, indexAt: null });

export function parseWhole(text: string, path: string): ReturnType<typeof HLS.parse> {
  // Silent: it would print what it tolerates; what matters of that, the line check has refused.
  HLS.setOptions({ silent: true, strictMode: false });
  try {
    return HLS.parse(text);
  } catch (error) {
    throw complain(
      { path, line: 1 },
      `the playlist library refuses it: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}
