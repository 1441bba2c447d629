// A steered MPD, written as text: one BaseURL with a serviceLocation per pathway in front, ContentSteering as the last
// child (its place in the schema of ISO/IEC 23009-1 since edition 5), everything else byte for byte. Relative BaseURLs
// deeper down resolve against the pathway's; absolute ones below the origin are written once per pathway.

import { Fault } from '../../protocol/faults.ts';
import { resolveTarget, targetOn, type Base, type Place, type Target } from './pathway.ts';

export interface DashSteering {
  readonly place: Place;
  readonly pathways: readonly Base[];
  readonly serverUri: string;
}

/** Throws `manifest_invalid` where no MPD can be found in the text. */
export function steerDash(text: string, steering: DashSteering): string {
  const elements = scan(text);
  const mpd = elements.find((element) => element.depth === 0);
  if (mpd === undefined || mpd.name !== 'MPD')
    throw new Fault('manifest_invalid', `${steering.place.path} has no MPD element at its root`);
  const children = elements.filter((element) => element.depth === 1);
  const prefix = mpd.prefix;
  const edits: Edit[] = [];
  const bases = children.filter(({ name }) => name === 'BaseURL');
  const root = rootTarget(bases, text, steering.place);
  for (const element of bases) edits.push({ start: element.start, end: element.end, text: '' });
  // A Location would lead a player that reloads away from its steered copy; another's steering would fight this one.
  for (const element of children)
    if (['Location', 'PatchLocation', 'ContentSteering'].includes(element.name))
      edits.push({ start: element.start, end: element.end, text: '' });
  for (const element of elements)
    if (element.name === 'BaseURL' && element.depth > 1) edits.push(...deepBase(element, { text, steering, prefix }));
  const anchor = children.find(({ name }) => name !== 'ProgramInformation')?.start ?? mpd.innerEnd;
  edits.push({ start: anchor, end: anchor, text: baseUrls(root, steering.pathways, prefix).join('\n  ') + '\n  ' });
  edits.push({ start: mpd.innerEnd, end: mpd.innerEnd, text: `  ${contentSteering(steering, prefix)}\n` });
  return apply(text, edits);
}

/** The directory that relative URLs resolve against: the manifest's, or where its first own BaseURL points. */
function rootTarget(bases: readonly Element[], text: string, place: Place): Target {
  for (const element of bases) {
    const target = resolveTarget(innerText(element, text), place);
    if ('asset' in target) return target;
  }
  return { asset: place.path.slice(0, place.path.lastIndexOf('/') + 1) };
}

/** Null edits for a relative one: it is right as it stands. */
function deepBase(
  element: Element,
  { text, steering, prefix }: { readonly text: string; readonly steering: DashSteering; readonly prefix: string },
): Edit[] {
  const uri = innerText(element, text);
  if (!/^([A-Za-z][A-Za-z0-9+.-]*:|\/)/.test(uri)) return [];
  const target = resolveTarget(uri, steering.place);
  if (!('asset' in target)) return [];
  return [{ start: element.start, end: element.end, text: baseUrls(target, steering.pathways, prefix).join('') }];
}

const baseUrls = (target: Target, pathways: readonly Base[], prefix: string): string[] =>
  pathways.map(
    (pathway) =>
      `<${prefix}BaseURL serviceLocation="${escape(pathway.id)}">${escape(targetOn(target, pathway))}</${prefix}BaseURL>`,
  );

const contentSteering = ({ pathways, serverUri }: DashSteering, prefix: string): string =>
  `<${prefix}ContentSteering defaultServiceLocation="${escape(pathways[0]!.id)}" queryBeforeStart="false">` +
  `${escape(serverUri)}</${prefix}ContentSteering>`;

interface Element {
  readonly name: string;
  /** Namespace prefix with its colon, or nothing. */
  readonly prefix: string;
  readonly depth: number;
  readonly start: number;
  readonly end: number;
  readonly innerStart: number;
  readonly innerEnd: number;
}

/** Markup that is no element, then tags; attribute values may hold `>`. */
const MARKUP =
  /<!--[\s\S]*?-->|<!\[CDATA\[[\s\S]*?\]\]>|<\?[\s\S]*?\?>|<![^>]*>|<(\/?)((?:[\w.-]+:)?)([\w.-]+)(?:[^<>"']|"[^"]*"|'[^']*')*?(\/?)>/g;

/** Elements in the order of their start tags. Fill validated the document at import; this only finds places in it. */
function scan(text: string): Element[] {
  const found: Element[] = [];
  const open: { readonly at: number; readonly name: string }[] = [];
  for (const match of text.matchAll(MARKUP)) {
    const [whole, close, prefix, name, empty] = match;
    if (name === undefined) continue;
    const end = match.index + whole.length;
    if (close === '/') {
      const begun = open.pop();
      if (begun !== undefined) found[begun.at] = { ...found[begun.at]!, innerEnd: match.index, end };
      continue;
    }
    found.push({
      name,
      prefix: prefix!,
      depth: open.length,
      start: match.index,
      end,
      innerStart: end,
      innerEnd: end,
    });
    if (empty !== '/') open.push({ at: found.length - 1, name });
  }
  return found;
}

interface Edit {
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

function apply(text: string, edits: readonly Edit[]): string {
  let out = '';
  let at = 0;
  for (const edit of [...edits].sort((a, b) => a.start - b.start || a.end - b.end)) {
    out += text.slice(at, edit.start) + edit.text;
    at = Math.max(at, edit.end);
  }
  return out + text.slice(at);
}

const innerText = (element: Element, text: string): string =>
  text
    .slice(element.innerStart, element.innerEnd)
    .replaceAll(/<!\[CDATA\[([\s\S]*?)\]\]>/g, '$1')
    .replaceAll('&lt;', '<')
    .replaceAll('&gt;', '>')
    .replaceAll('&quot;', '"')
    .replaceAll('&apos;', "'")
    .replaceAll('&amp;', '&')
    .trim();

const escape = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
