// XML with positions: the validator first, since the parser reads nearly anything, then a tree in which every element knows
// its line and column. No DOCTYPE: an MPD needs none, and entities are how small documents become large.

import { XMLParser, XMLValidator } from 'fast-xml-parser';
import { complain, type Place } from './manifest.ts';

export interface XmlElement {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly children: readonly XmlElement[];
  readonly text: string;
  readonly place: Place;
}

export const DEPTH_MAX = 32;
/** The validator's list of elements that no tag closes, outermost first, which it places at the start. */
const NEVER_CLOSED = /^Invalid '\[.*"([^"]+)"\]' found\.$/;

/** The root element. Throws `manifest_invalid` with line and column. */
export function readXml(document: string, path: string): XmlElement {
  // A byte order mark is no part of the document; without it columns count as an editor shows them.
  const text = document.replace(/^\uFEFF/, '');
  const doctype = text.search(/<!DOCTYPE/i);
  if (doctype >= 0) throw complain(placeAt(text, path)(doctype), 'a document type is not allowed in a manifest');
  const valid = XMLValidator.validate(text);
  if (valid !== true) {
    const { line, col, msg } = valid.err;
    const open = NEVER_CLOSED.exec(msg);
    if (open !== null) throw complain(placeAt(text, path)(text.length), `the document ends before </${open[1]}>`);
    throw complain({ path, line, column: col ?? 1 }, msg);
  }
  const parser = new XMLParser({
    preserveOrder: true,
    ignoreAttributes: false,
    attributeNamePrefix: '',
    removeNSPrefix: true,
    parseTagValue: false,
    parseAttributeValue: false,
    captureMetaData: true,
    maxNestedTags: DEPTH_MAX,
  });
  const place = placeAt(text, path);
  let nodes: unknown;
  try {
    nodes = parser.parse(text);
  } catch (error) {
    throw complain({ path, line: 1, column: 1 }, error instanceof Error ? error.message : String(error));
  }
  const roots = (nodes as Node[]).map((node) => elementOf(node, place)).filter((element) => element !== null);
  const [root, second] = roots;
  if (root === undefined) throw complain({ path, line: 1, column: 1 }, 'the document has no element');
  if (second !== undefined) throw complain(second.place, `<${second.name}> is a second root element`);
  return root;
}

export const childrenNamed = (element: XmlElement, name: string): XmlElement[] =>
  element.children.filter((child) => child.name === name);

export const childNamed = (element: XmlElement, name: string): XmlElement | null =>
  element.children.find((child) => child.name === name) ?? null;

/** What the parser gives in document order: `{ Name: children, ':@': attributes }` or `{ '#text': … }`. */
type Node = Readonly<Record<string, unknown>>;

function elementOf(node: Node, place: (index: number) => Place): XmlElement | null {
  const name = Object.keys(node).find((key) => key !== ':@')!;
  if (name.startsWith('#') || name.startsWith('?')) return null;
  const inner = node[name] as readonly Node[];
  const meta = (node as Readonly<Record<symbol, unknown>>)[XMLParser.getMetaDataSymbol() as symbol] as {
    startIndex?: number;
  };
  return {
    name,
    attributes: (node[':@'] ?? {}) as Record<string, string>,
    children: inner.map((child) => elementOf(child, place)).filter((child) => child !== null),
    text: inner
      .map((child) => (typeof child['#text'] === 'string' ? child['#text'] : ''))
      .join('')
      .trim(),
    place: place(meta.startIndex ?? 0),
  };
}

/** Line and column of an index, by binary search over the line starts. */
function placeAt(text: string, path: string): (index: number) => Place {
  const starts = [0];
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) starts.push(at + 1);
  return (index) => {
    let [low, high] = [0, starts.length - 1];
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (starts[middle]! <= index) low = middle;
      else high = middle - 1;
    }
    return { path, line: low + 1, column: index - starts[low]! + 1 };
  };
}
