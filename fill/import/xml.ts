// XML with source locations: the validator runs first, since the parser accepts nearly anything; then the parser builds a tree in
// which every element has its line and column. A DOCTYPE is refused: an MPD needs none, and entities make a small document
// expand into a huge one.

import { XMLParser, XMLValidator } from 'fast-xml-parser';
import { manifestFault, type SourceLocation } from './manifest.ts';

export interface XmlElement {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly children: readonly XmlElement[];
  readonly text: string;
  readonly location: SourceLocation;
}

const DEPTH_MAX = 32;
/** The validator's message for elements that are never closed, outermost first. Its location is the start of the document. */
const NEVER_CLOSED = /^Invalid '\[.*"([^"]+)"\]' found\.$/;

/** Returns the root element. Throws `manifest_invalid` with line and column. */
export function parseXml(document: string, path: string): XmlElement {
  // Without the byte order mark, columns count as an editor shows them.
  const text = document.replace(/^\uFEFF/, '');
  const locate = locator(text, path);
  validate(text, path, locate);
  const roots = parseNodes(text, path)
    .map((node) => toElement(node, locate))
    .filter((element) => element !== null);
  const [root, second] = roots;
  if (root === undefined) throw manifestFault({ path, line: 1, column: 1 }, 'the document has no element');
  if (second !== undefined) throw manifestFault(second.location, `<${second.name}> is a second root element`);
  return root;
}

export const childrenNamed = (element: XmlElement, name: string): XmlElement[] =>
  element.children.filter((child) => child.name === name);

export const childNamed = (element: XmlElement, name: string): XmlElement | null =>
  element.children.find((child) => child.name === name) ?? null;

/** Maps an index in a text to its location. */
type Locate = (index: number) => SourceLocation;

function validate(text: string, path: string, locate: Locate): void {
  const doctype = text.search(/<!DOCTYPE/i);
  if (doctype >= 0) throw manifestFault(locate(doctype), 'a document type is not allowed in a manifest');
  const result = XMLValidator.validate(text);
  if (result === true) return;
  const { line, col, msg } = result.err;
  const neverClosed = NEVER_CLOSED.exec(msg);
  if (neverClosed !== null) throw manifestFault(locate(text.length), `the document ends before </${neverClosed[1]}>`);
  throw manifestFault({ path, line, column: col ?? 1 }, msg);
}

/** A node as the parser returns it: `{ Name: children, ':@': attributes }` or `{ '#text': … }`. */
type ParserNode = Readonly<Record<string, unknown>>;

function parseNodes(text: string, path: string): readonly ParserNode[] {
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
  try {
    return parser.parse(text) as ParserNode[];
  } catch (error) {
    throw manifestFault({ path, line: 1, column: 1 }, error instanceof Error ? error.message : String(error));
  }
}

/** Null for text and processing instructions. */
function toElement(node: ParserNode, locate: Locate): XmlElement | null {
  const name = Object.keys(node).find((key) => key !== ':@')!;
  if (name.startsWith('#') || name.startsWith('?')) return null;
  const children = node[name] as readonly ParserNode[];
  const metadata = (node as Readonly<Record<symbol, unknown>>)[XMLParser.getMetaDataSymbol() as symbol] as {
    startIndex?: number;
  };
  return {
    name,
    attributes: (node[':@'] ?? {}) as Record<string, string>,
    children: children.map((child) => toElement(child, locate)).filter((child) => child !== null),
    text: children
      .map((child) => (typeof child['#text'] === 'string' ? child['#text'] : ''))
      .join('')
      .trim(),
    location: locate(metadata.startIndex ?? 0),
  };
}

/** Finds locations by binary search over the starts of the lines. */
function locator(text: string, path: string): Locate {
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
