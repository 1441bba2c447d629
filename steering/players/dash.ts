// Steers an MPD by editing its text: one BaseURL with a serviceLocation per pathway goes first, ContentSteering becomes the
// last child (its place in the schema of ISO/IEC 23009-1 since edition 5), and everything else stays byte for byte. Relative
// BaseURLs further down resolve against the pathway's; absolute ones below the origin are repeated per pathway.

import { Fault } from '../../protocol/faults.ts';
import {
  resolveUri,
  uriOn,
  type ManifestLocation,
  type ManifestPathway,
  type ManifestSteering,
  type UriTarget,
} from './pathway.ts';

/** Throws `manifest_invalid` if the text has no MPD element at its root. */
export function steerDash(text: string, steering: ManifestSteering): string {
  const elements = scanElements(text);
  const mpd = elements.find((element) => element.depth === 0);
  if (mpd === undefined || mpd.name !== 'MPD')
    throw new Fault('manifest_invalid', `${steering.manifest.path} has no MPD element at its root`);
  const children = elements.filter((element) => element.depth === 1);
  const prefix = mpd.prefix;
  const edits: TextEdit[] = [];
  const bases = children.filter(({ name }) => name === 'BaseURL');
  const root = rootTarget(bases, text, steering.manifest);
  for (const element of bases) edits.push({ start: element.start, end: element.end, text: '' });
  // A Location would make a reloading player leave its steered copy, and the MPD's own steering would compete with this one.
  for (const element of children)
    if (['Location', 'PatchLocation', 'ContentSteering'].includes(element.name))
      edits.push({ start: element.start, end: element.end, text: '' });
  for (const element of elements)
    if (element.name === 'BaseURL' && element.depth > 1)
      edits.push(...nestedBaseEdits(element, { text, steering, prefix }));
  const anchor = children.find(({ name }) => name !== 'ProgramInformation')?.start ?? mpd.innerEnd;
  edits.push({ start: anchor, end: anchor, text: baseUrls(root, steering.pathways, prefix).join('\n  ') + '\n  ' });
  edits.push({ start: mpd.innerEnd, end: mpd.innerEnd, text: `  ${contentSteering(steering, prefix)}\n` });
  return applyEdits(text, edits);
}

/** What relative URLs resolve against: the MPD's first BaseURL that is an asset or, without one, the directory of the MPD. */
function rootTarget(bases: readonly XmlElement[], text: string, manifest: ManifestLocation): UriTarget {
  for (const element of bases) {
    const target = resolveUri(innerText(element, text), manifest);
    if ('asset' in target) return target;
  }
  return { asset: manifest.path.slice(0, manifest.path.lastIndexOf('/') + 1) };
}

/** A relative BaseURL needs no edit, because it resolves against that of the pathway. */
function nestedBaseEdits(
  element: XmlElement,
  { text, steering, prefix }: { readonly text: string; readonly steering: ManifestSteering; readonly prefix: string },
): TextEdit[] {
  const uri = innerText(element, text);
  if (!/^([A-Za-z][A-Za-z0-9+.-]*:|\/)/.test(uri)) return [];
  const target = resolveUri(uri, steering.manifest);
  if (!('asset' in target)) return [];
  return [{ start: element.start, end: element.end, text: baseUrls(target, steering.pathways, prefix).join('') }];
}

const baseUrls = (target: UriTarget, pathways: readonly ManifestPathway[], prefix: string): string[] =>
  pathways.map(
    (pathway) =>
      `<${prefix}BaseURL serviceLocation="${escape(pathway.id)}">${escape(uriOn(target, pathway))}</${prefix}BaseURL>`,
  );

const contentSteering = ({ pathways, serverUri }: ManifestSteering, prefix: string): string =>
  `<${prefix}ContentSteering defaultServiceLocation="${escape(pathways[0]!.id)}" queryBeforeStart="false">` +
  `${escape(serverUri)}</${prefix}ContentSteering>`;

interface XmlElement {
  readonly name: string;
  /** Namespace prefix with its colon, or the empty string. */
  readonly prefix: string;
  readonly depth: number;
  readonly start: number;
  readonly end: number;
  readonly innerStart: number;
  readonly innerEnd: number;
}

/** Comments, CDATA, processing instructions and declarations, then tags, whose attribute values may contain `>`. */
const MARKUP =
  /<!--[\s\S]*?-->|<!\[CDATA\[[\s\S]*?\]\]>|<\?[\s\S]*?\?>|<![^>]*>|<(\/?)((?:[\w.-]+:)?)([\w.-]+)(?:[^<>"']|"[^"]*"|'[^']*')*?(\/?)>/g;

/** Elements in the order of their start tags. Fill validated the document at import; this only locates elements in it. */
function scanElements(text: string): XmlElement[] {
  const elements: XmlElement[] = [];
  /** Indexes into `elements` of those that are still open, innermost last. */
  const open: number[] = [];
  for (const match of text.matchAll(MARKUP)) {
    const [whole, close, prefix, name, empty] = match;
    if (name === undefined) continue;
    const end = match.index + whole.length;
    if (close === '/') {
      const index = open.pop();
      if (index !== undefined) elements[index] = { ...elements[index]!, innerEnd: match.index, end };
      continue;
    }
    elements.push({
      name,
      prefix: prefix!,
      depth: open.length,
      start: match.index,
      end,
      innerStart: end,
      innerEnd: end,
    });
    if (empty !== '/') open.push(elements.length - 1);
  }
  return elements;
}

interface TextEdit {
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

function applyEdits(text: string, edits: readonly TextEdit[]): string {
  let out = '';
  let offset = 0;
  for (const edit of [...edits].sort((a, b) => a.start - b.start || a.end - b.end)) {
    out += text.slice(offset, edit.start) + edit.text;
    offset = Math.max(offset, edit.end);
  }
  return out + text.slice(offset);
}

const innerText = (element: XmlElement, text: string): string =>
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
