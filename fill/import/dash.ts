// DASH: every asset that a static MPD names (ISO/IEC 23009-1): SegmentTemplate with $Number$ and $Time$, SegmentTimeline,
// SegmentList, SegmentBase, or one file behind a BaseURL. A rendition is a Representation, the same one in all periods.

import type { RenditionDraft } from './manifest.ts';
import {
  clip,
  complain,
  RENDITIONS_MAX,
  resolveName,
  SEGMENTS_MAX,
  type Ground,
  type ManifestDraft,
  type Place,
  type Reference,
} from './manifest.ts';
import { expandTemplate, readDuration, segmentTimes, wholeNumber } from './dash-template.ts';
import { childNamed, childrenNamed, readXml, type XmlElement } from './xml.ts';

/** A Representation in its period, with what it inherits. */
interface Scope {
  readonly representation: XmlElement;
  /** Period, AdaptationSet, Representation. */
  readonly levels: readonly XmlElement[];
  readonly id: string;
  readonly bandwidth: number | null;
  /** Document path that names are resolved against, after all BaseURLs. */
  readonly stand: string;
  /** True where a BaseURL names a file. */
  readonly periodS: number | null;
  readonly ground: Ground;
}

interface Named {
  readonly inits: Reference[];
  readonly segments: Reference[];
}

export function readMpd(text: string, path: string, ground: Ground): ManifestDraft {
  const mpd = readXml(text, path);
  if (mpd.name !== 'MPD') throw complain(mpd.place, `the root element is <${clip(mpd.name)}>, but must be <MPD>`);
  const type = mpd.attributes['type'] ?? 'static';
  if (type !== 'static')
    throw complain(mpd.place, `MPD@type is "${clip(type)}": it is live, and only static manifests can be imported`);
  const periods = childrenNamed(mpd, 'Period');
  if (periods.length === 0) throw complain(mpd.place, 'the MPD has no Period');
  const wholeS = readDuration(mpd, 'mediaPresentationDuration');
  const spans = periodSpans(periods, wholeS);
  const drafts = new Map<string, RenditionDraft>();
  for (const [at, period] of periods.entries()) {
    assertLocal(period);
    const sets = childrenNamed(period, 'AdaptationSet');
    if (sets.length === 0) throw complain(period.place, 'the Period has no AdaptationSet');
    for (const set of sets) {
      assertLocal(set);
      for (const draft of readSet({ mpd, period, set, periodS: spans[at]!, path, ground }))
        drafts.set(draft.id, joined(drafts.get(draft.id), draft));
    }
  }
  if (drafts.size > RENDITIONS_MAX) throw complain(mpd.place, `a title has at most ${RENDITIONS_MAX} renditions`);
  const information = childNamed(mpd, 'ProgramInformation');
  return {
    dialect: 'dash',
    path,
    text,
    name: (information === null ? null : childNamed(information, 'Title')?.text) || null,
    durationS: wholeS ?? spans.reduce<number>((total, span) => total + (span ?? 0), 0),
    renditions: [...drafts.values()],
    shared: [],
  };
}

/** Seconds of each period: its own duration, or up to the next one's start, or to the end of the presentation. */
function periodSpans(periods: readonly XmlElement[], wholeS: number | null): (number | null)[] {
  let startS = 0;
  const starts = periods.map((period, at) => {
    const own = readDuration(period, 'start');
    const before = at === 0 ? 0 : readDuration(periods[at - 1]!, 'duration');
    startS = own ?? (before === null ? startS : startS + before);
    return startS;
  });
  return periods.map((period, at) => {
    const end = starts[at + 1] ?? wholeS;
    return readDuration(period, 'duration') ?? (end === null ? null : end - starts[at]!);
  });
}

/** A remote element (xlink) would be fetched by the player, past every appliance. */
function assertLocal(element: XmlElement): void {
  if (element.attributes['href'] !== undefined)
    throw complain(element.place, `<${element.name}> is remote (xlink:href); write its content into the MPD`);
}

interface SetInput {
  readonly mpd: XmlElement;
  readonly period: XmlElement;
  readonly set: XmlElement;
  readonly periodS: number | null;
  readonly path: string;
  readonly ground: Ground;
}

function readSet(input: SetInput): RenditionDraft[] {
  const { set, period, mpd, ground } = input;
  const representations = childrenNamed(set, 'Representation');
  if (representations.length === 0) throw complain(set.place, 'the AdaptationSet has no Representation');
  return representations.map((representation) => {
    const id = representation.attributes['id'];
    if (id === undefined || id === '') throw complain(representation.place, 'the Representation has no id');
    const bandwidth = wholeNumber(representation, 'bandwidth');
    const levels = [period, set, representation];
    const stand = [mpd, ...levels].reduce((at, level) => stepInto(at, level, ground), input.path);
    const scope: Scope = { representation, levels, id, bandwidth, stand, periodS: input.periodS, ground };
    const kind = kindOf(set, representation);
    return {
      id: `${kind}/${id}`,
      kind,
      bandwidth,
      width: wholeNumber(representation, 'width') ?? wholeNumber(set, 'width'),
      height: wholeNumber(representation, 'height') ?? wholeNumber(set, 'height'),
      language: (representation.attributes['lang'] ?? set.attributes['lang'] ?? '').slice(0, 35) || null,
      playlists: [],
      ...readSegments(scope),
    };
  });
}

/** Follows a level's first BaseURL; further ones are alternatives, which steering replaces. */
function stepInto(stand: string, level: XmlElement, ground: Ground): string {
  const base = childNamed(level, 'BaseURL');
  if (base === null) return stand;
  const name = base.text;
  if (!name.endsWith('/')) return resolveName(name, stand, ground, base.place);
  // A directory: resolved as a file in it, which must lie below the title's base.
  return resolveName(`${name}-`, stand, ground, base.place).slice(0, -1);
}

function kindOf(set: XmlElement, representation: XmlElement): RenditionDraft['kind'] {
  const trick = childrenNamed(set, 'EssentialProperty').some((p) =>
    /trickmode|thumbnail_tile/.test(p.attributes['schemeIdUri'] ?? ''),
  );
  const mime = representation.attributes['mimeType'] ?? set.attributes['mimeType'] ?? '';
  const codecs = representation.attributes['codecs'] ?? set.attributes['codecs'] ?? '';
  const content = set.attributes['contentType'] ?? mime.split('/')[0]!;
  if (trick || content === 'image') return 'iframe';
  if (content === 'text' || /ttml|vtt/.test(mime) || /^(stpp|wvtt)/.test(codecs)) return 'text';
  if (content === 'video' || content === 'audio') return content;
  throw complain(set.place, `the AdaptationSet has neither contentType nor mimeType of video, audio, text or image`);
}

function readSegments(scope: Scope): Named {
  const template = inherited(scope, 'SegmentTemplate');
  if (template !== null) return readTemplate(scope, template);
  const list = inherited(scope, 'SegmentList');
  if (list !== null) return readList(scope, list);
  const base = inherited(scope, 'SegmentBase');
  if (base !== null) return readBase(scope, base);
  return { inits: [], segments: [fileOf(scope, scope.representation.place)] };
}

/** The elements of a name from Period down to Representation, merged: the innermost attribute and child wins. */
function inherited(scope: Scope, name: string): XmlElement | null {
  const found = scope.levels.map((level) => childNamed(level, name)).filter((element) => element !== null);
  if (found.length === 0) return null;
  const innermost = found.at(-1)!;
  const children = new Map<string, XmlElement[]>();
  for (const element of found)
    for (const kind of new Set(element.children.map((child) => child.name)))
      children.set(kind, childrenNamed(element, kind));
  return {
    ...innermost,
    attributes: Object.assign({}, ...found.map((element) => element.attributes)) as Record<string, string>,
    children: [...children.values()].flat(),
  };
}

function readTemplate(scope: Scope, template: XmlElement): Named {
  const values = { id: scope.id, bandwidth: scope.bandwidth };
  const expand = (name: string, more: { number?: number; time?: bigint }): Reference =>
    reference(
      scope,
      expandTemplate(template.attributes[name]!, { ...values, ...more }, template.place),
      template.place,
    );
  const inits = template.attributes['initialization'] === undefined ? [] : [expand('initialization', {})];
  inits.push(...readInit(scope, template));
  if (template.attributes['media'] === undefined) {
    if (inits.length === 0) throw complain(template.place, 'the SegmentTemplate has no media');
    return { inits, segments: [fileOf(scope, template.place)] };
  }
  const segments = segmentTimes(template, scope.periodS).map((segment) => expand('media', segment));
  if (segments.length === 0) throw complain(template.place, 'the SegmentTemplate names no segment');
  return { inits, segments: distinct(segments) };
}

function readList(scope: Scope, list: XmlElement): Named {
  assertLocal(list);
  const urls = childrenNamed(list, 'SegmentURL');
  if (urls.length === 0) throw complain(list.place, 'the SegmentList has no SegmentURL');
  if (urls.length > SEGMENTS_MAX) throw complain(list.place, `a Representation has at most ${SEGMENTS_MAX} segments`);
  const segments = urls.map((url) => {
    const media = url.attributes['media'];
    const target = media === undefined ? fileOf(scope, url.place) : reference(scope, media, url.place);
    return { ...target, endBytes: rangeEnd(url, 'mediaRange') };
  });
  return { inits: readInit(scope, list), segments };
}

/** One file with its index; the index must be where the MPD says. */
function readBase(scope: Scope, base: XmlElement): Named {
  const file = fileOf(scope, base.place);
  const end = rangeEnd(base, 'indexRange');
  const external = childNamed(base, 'RepresentationIndex')?.attributes['sourceURL'];
  const inits = readInit(scope, base);
  if (external !== undefined) inits.push(reference(scope, external, base.place));
  const indexAt = end === null || external !== undefined ? null : Number(base.attributes['indexRange']!.split('-')[0]);
  return { inits, segments: [{ ...file, endBytes: end, indexAt }] };
}

function readInit(scope: Scope, element: XmlElement): Reference[] {
  const init = childNamed(element, 'Initialization');
  if (init === null) return [];
  const source = init.attributes['sourceURL'];
  const target = source === undefined ? fileOf(scope, init.place) : reference(scope, source, init.place);
  return [{ ...target, endBytes: rangeEnd(init, 'range') }];
}

/** Exclusive end of `first-last`; null where the attribute is absent. */
function rangeEnd(element: XmlElement, name: string): number | null {
  const text = element.attributes[name];
  if (text === undefined) return null;
  const match = /^(\d{1,15})-(\d{1,15})$/.exec(text);
  if (match === null || Number(match[1]) > Number(match[2]))
    throw complain(element.place, `${element.name}@${name} is "${clip(text)}", but must be FIRST-LAST in bytes`);
  return Number(match[2]) + 1;
}

/** The file that the BaseURLs lead to. */
function fileOf(scope: Scope, place: Place): Reference {
  if (scope.stand === place.path || scope.stand.endsWith('/'))
    throw complain(
      place,
      `Representation ${clip(scope.id)} names no file: it needs a BaseURL, a SegmentTemplate or a SegmentList`,
    );
  return { path: scope.stand, place, endBytes: null, indexAt: null };
}

const reference = (scope: Scope, name: string, place: Place): Reference => ({
  path: resolveName(name, scope.stand, scope.ground, place),
  place,
  endBytes: null,
  indexAt: null,
});

/** A template without $Number$ and $Time$ names one file for all segments. */
function distinct(references: readonly Reference[]): Reference[] {
  return [...new Map(references.map((r) => [r.path, r])).values()];
}

function joined(before: RenditionDraft | undefined, draft: RenditionDraft): RenditionDraft {
  if (before === undefined) return draft;
  return { ...before, inits: [...before.inits, ...draft.inits], segments: [...before.segments, ...draft.segments] };
}
