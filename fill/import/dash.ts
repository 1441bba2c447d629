// DASH: every asset that a static MPD references (ISO/IEC 23009-1): by SegmentTemplate with $Number$ or $Time$, SegmentTimeline,
// SegmentList, SegmentBase, or as one file behind a BaseURL. A rendition is a Representation, the same one in all periods.

import { expandTemplate, parseXsDuration, segmentTimes, wholeNumber } from './dash-template.ts';
import {
  manifestFault,
  RENDITIONS_MAX,
  resolveUri,
  SEGMENTS_MAX,
  shorten,
  type AssetReference,
  type ParsedManifest,
  type ParsedRendition,
  type SourceLocation,
  type TitleRoot,
} from './manifest.ts';
import { childNamed, childrenNamed, parseXml, type XmlElement } from './xml.ts';

export function parseMpd(text: string, path: string, titleRoot: TitleRoot): ParsedManifest {
  const mpd = parseXml(text, path);
  assertStatic(mpd);
  const periods = childrenNamed(mpd, 'Period');
  if (periods.length === 0) throw manifestFault(mpd.location, 'the MPD has no Period');
  const totalS = parseXsDuration(mpd, 'mediaPresentationDuration');
  const periodsS = periodDurations(periods, totalS);
  const renditions = new Map<string, ParsedRendition>();
  for (const [index, period] of periods.entries())
    for (const rendition of parsePeriod({ mpd, period, periodS: periodsS[index]!, path, titleRoot }))
      renditions.set(rendition.id, joined(renditions.get(rendition.id), rendition));
  if (renditions.size > RENDITIONS_MAX)
    throw manifestFault(mpd.location, `a title has at most ${RENDITIONS_MAX} renditions`);
  const information = childNamed(mpd, 'ProgramInformation');
  return {
    dialect: 'dash',
    path,
    text,
    name: (information === null ? null : childNamed(information, 'Title')?.text) || null,
    durationS: totalS ?? periodsS.reduce<number>((total, periodS) => total + (periodS ?? 0), 0),
    renditions: [...renditions.values()],
    shared: [],
  };
}

function assertStatic(mpd: XmlElement): void {
  if (mpd.name !== 'MPD')
    throw manifestFault(mpd.location, `the root element is <${shorten(mpd.name)}>, but must be <MPD>`);
  const type = mpd.attributes['type'] ?? 'static';
  if (type !== 'static')
    throw manifestFault(
      mpd.location,
      `MPD@type is "${shorten(type)}": it is live, and only static manifests can be imported`,
    );
}

/** Seconds of each period: its own duration, or up to the start of the next one, or to the end of the presentation. */
function periodDurations(periods: readonly XmlElement[], totalS: number | null): (number | null)[] {
  let startS = 0;
  const starts = periods.map((period, index) => {
    const ownS = parseXsDuration(period, 'start');
    const previousS = index === 0 ? 0 : parseXsDuration(periods[index - 1]!, 'duration');
    startS = ownS ?? (previousS === null ? startS : startS + previousS);
    return startS;
  });
  return periods.map((period, index) => {
    const endS = starts[index + 1] ?? totalS;
    return parseXsDuration(period, 'duration') ?? (endS === null ? null : endS - starts[index]!);
  });
}

/** A remote element (xlink) would be fetched by the player and bypass the appliances. */
function assertNotRemote(element: XmlElement): void {
  if (element.attributes['href'] !== undefined)
    throw manifestFault(element.location, `<${element.name}> is remote (xlink:href); write its content into the MPD`);
}

interface PeriodContext {
  readonly mpd: XmlElement;
  readonly period: XmlElement;
  /** Null if it is unknown. */
  readonly periodS: number | null;
  /** Asset path of the MPD. */
  readonly path: string;
  readonly titleRoot: TitleRoot;
}

function parsePeriod(context: PeriodContext): ParsedRendition[] {
  const { period } = context;
  assertNotRemote(period);
  const sets = childrenNamed(period, 'AdaptationSet');
  if (sets.length === 0) throw manifestFault(period.location, 'the Period has no AdaptationSet');
  return sets.flatMap((set) => {
    assertNotRemote(set);
    const representations = childrenNamed(set, 'Representation');
    if (representations.length === 0) throw manifestFault(set.location, 'the AdaptationSet has no Representation');
    return representations.map((representation) => parseRepresentation(representation, set, context));
  });
}

function parseRepresentation(
  representation: XmlElement,
  set: XmlElement,
  { mpd, period, periodS, path, titleRoot }: PeriodContext,
): ParsedRendition {
  const id = representation.attributes['id'];
  if (id === undefined || id === '') throw manifestFault(representation.location, 'the Representation has no id');
  const bandwidth = wholeNumber(representation, 'bandwidth');
  const levels = [period, set, representation];
  const baseUrl = [mpd, ...levels].reduce((base, level) => applyBaseUrl(base, level, titleRoot), path);
  const kind = kindOf(set, representation);
  return {
    id: `${kind}/${id}`,
    kind,
    bandwidth,
    width: wholeNumber(representation, 'width') ?? wholeNumber(set, 'width'),
    height: wholeNumber(representation, 'height') ?? wholeNumber(set, 'height'),
    language: (representation.attributes['lang'] ?? set.attributes['lang'] ?? '').slice(0, 35) || null,
    playlists: [],
    ...parseSegments({ representation, levels, id, bandwidth, baseUrl, periodS, titleRoot }),
  };
}

/** Applies the first BaseURL of a level. Further ones are alternatives, which steering replaces. */
function applyBaseUrl(baseUrl: string, level: XmlElement, titleRoot: TitleRoot): string {
  const element = childNamed(level, 'BaseURL');
  if (element === null) return baseUrl;
  const { text: uri, location } = element;
  if (!uri.endsWith('/')) return resolveUri(uri, { baseUrl, titleRoot, location });
  // A directory is resolved as a file in it, which must lie below the title's base.
  return resolveUri(`${uri}-`, { baseUrl, titleRoot, location }).slice(0, -1);
}

function kindOf(set: XmlElement, representation: XmlElement): ParsedRendition['kind'] {
  const isTrickPlay = childrenNamed(set, 'EssentialProperty').some((p) =>
    /trickmode|thumbnail_tile/.test(p.attributes['schemeIdUri'] ?? ''),
  );
  const mime = representation.attributes['mimeType'] ?? set.attributes['mimeType'] ?? '';
  const codecs = representation.attributes['codecs'] ?? set.attributes['codecs'] ?? '';
  const content = set.attributes['contentType'] ?? mime.split('/')[0]!;
  if (isTrickPlay || content === 'image') return 'iframe';
  if (content === 'text' || /ttml|vtt/.test(mime) || /^(stpp|wvtt)/.test(codecs)) return 'text';
  if (content === 'video' || content === 'audio') return content;
  throw manifestFault(
    set.location,
    `the AdaptationSet has neither contentType nor mimeType of video, audio, text or image`,
  );
}

/** A Representation in its period, with everything that it inherits. */
interface RepresentationContext {
  readonly representation: XmlElement;
  /** Period, AdaptationSet, Representation. */
  readonly levels: readonly XmlElement[];
  readonly id: string;
  readonly bandwidth: number | null;
  /** Asset path that URIs are relative to, after all BaseURLs. */
  readonly baseUrl: string;
  /** Null if it is unknown. */
  readonly periodS: number | null;
  readonly titleRoot: TitleRoot;
}

type Segments = Pick<ParsedRendition, 'inits' | 'segments'>;

function parseSegments(context: RepresentationContext): Segments {
  const template = inherited(context, 'SegmentTemplate');
  if (template !== null) return parseTemplate(context, template);
  const list = inherited(context, 'SegmentList');
  if (list !== null) return parseList(context, list);
  const base = inherited(context, 'SegmentBase');
  if (base !== null) return parseBase(context, base);
  return { inits: [], segments: [baseFile(context, context.representation.location)] };
}

/** The elements of one name from Period down to Representation, merged: the innermost attribute and child prevails. */
function inherited(context: RepresentationContext, name: string): XmlElement | null {
  const elements = context.levels.map((level) => childNamed(level, name)).filter((element) => element !== null);
  const innermost = elements.at(-1);
  if (innermost === undefined) return null;
  const children = new Map<string, XmlElement[]>();
  for (const element of elements)
    for (const kind of new Set(element.children.map((child) => child.name)))
      children.set(kind, childrenNamed(element, kind));
  return {
    ...innermost,
    attributes: Object.assign({}, ...elements.map((element) => element.attributes)) as Record<string, string>,
    children: [...children.values()].flat(),
  };
}

function parseTemplate(context: RepresentationContext, template: XmlElement): Segments {
  const { attributes, location } = template;
  const { id, bandwidth } = context;
  const expand = (uriTemplate: string, values: { number?: number; time?: bigint }): AssetReference =>
    assetReference(context, expandTemplate(uriTemplate, { id, bandwidth, ...values }, location), location);
  const { initialization, media } = attributes;
  const inits = initialization === undefined ? [] : [expand(initialization, {})];
  inits.push(...parseInit(context, template));
  if (media === undefined) {
    if (inits.length === 0) throw manifestFault(location, 'the SegmentTemplate has no media');
    return { inits, segments: [baseFile(context, location)] };
  }
  const segments = segmentTimes(template, context.periodS).map((time) => expand(media, time));
  if (segments.length === 0) throw manifestFault(location, 'the SegmentTemplate names no segment');
  return { inits, segments: distinct(segments) };
}

function parseList(context: RepresentationContext, list: XmlElement): Segments {
  assertNotRemote(list);
  const urls = childrenNamed(list, 'SegmentURL');
  if (urls.length === 0) throw manifestFault(list.location, 'the SegmentList has no SegmentURL');
  if (urls.length > SEGMENTS_MAX)
    throw manifestFault(list.location, `a Representation has at most ${SEGMENTS_MAX} segments`);
  const segments = urls.map((url) => {
    const { media } = url.attributes;
    const reference =
      media === undefined ? baseFile(context, url.location) : assetReference(context, media, url.location);
    return { ...reference, rangeEnd: parseRangeEnd(url, 'mediaRange') };
  });
  return { inits: parseInit(context, list), segments };
}

/** One file with its index, which must be at the offset given. */
function parseBase(context: RepresentationContext, base: XmlElement): Segments {
  const file = baseFile(context, base.location);
  const rangeEnd = parseRangeEnd(base, 'indexRange');
  const externalIndex = childNamed(base, 'RepresentationIndex')?.attributes['sourceURL'];
  const inits = parseInit(context, base);
  if (externalIndex !== undefined) inits.push(assetReference(context, externalIndex, base.location));
  const hasIndex = rangeEnd !== null && externalIndex === undefined;
  const sidxOffset = hasIndex ? Number(base.attributes['indexRange']!.split('-')[0]) : null;
  return { inits, segments: [{ ...file, rangeEnd, sidxOffset }] };
}

function parseInit(context: RepresentationContext, element: XmlElement): AssetReference[] {
  const init = childNamed(element, 'Initialization');
  if (init === null) return [];
  const source = init.attributes['sourceURL'];
  const reference =
    source === undefined ? baseFile(context, init.location) : assetReference(context, source, init.location);
  return [{ ...reference, rangeEnd: parseRangeEnd(init, 'range') }];
}

/** Exclusive end of a range `FIRST-LAST`; null if the attribute is absent. */
function parseRangeEnd(element: XmlElement, name: string): number | null {
  const text = element.attributes[name];
  if (text === undefined) return null;
  const match = /^(\d{1,15})-(\d{1,15})$/.exec(text);
  if (match === null || Number(match[1]) > Number(match[2]))
    throw manifestFault(
      element.location,
      `${element.name}@${name} is "${shorten(text)}", but must be FIRST-LAST in bytes`,
    );
  return Number(match[2]) + 1;
}

/** The file that the BaseURLs name. */
function baseFile({ id, baseUrl }: RepresentationContext, location: SourceLocation): AssetReference {
  if (baseUrl === location.path || baseUrl.endsWith('/'))
    throw manifestFault(
      location,
      `Representation ${shorten(id)} names no file: it needs a BaseURL, a SegmentTemplate or a SegmentList`,
    );
  return { path: baseUrl, location, rangeEnd: null, sidxOffset: null };
}

function assetReference(
  { baseUrl, titleRoot }: RepresentationContext,
  uri: string,
  location: SourceLocation,
): AssetReference {
  return { path: resolveUri(uri, { baseUrl, titleRoot, location }), location, rangeEnd: null, sidxOffset: null };
}

/** A template without $Number$ and $Time$ names the same file for every segment. */
function distinct(references: readonly AssetReference[]): AssetReference[] {
  return [...new Map(references.map((reference) => [reference.path, reference])).values()];
}

/** The rendition of several periods. */
function joined(previous: ParsedRendition | undefined, next: ParsedRendition): ParsedRendition {
  if (previous === undefined) return next;
  return {
    ...previous,
    inits: [...previous.inits, ...next.inits],
    segments: [...previous.segments, ...next.segments],
  };
}
