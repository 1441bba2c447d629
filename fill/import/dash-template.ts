// The arithmetic of DASH: URIs from templates, numbers and times of segments, durations (ISO/IEC 23009-1, 5.3.9.4 and 5.3.9.6).
// Times are bigint, because @t may exceed 2⁵³ with a timescale of ten million ticks per second.

import { manifestFault, SEGMENTS_MAX, shorten, type SourceLocation } from './manifest.ts';
import { childNamed, childrenNamed, type XmlElement } from './xml.ts';

interface SegmentTime {
  readonly number: number;
  readonly time: bigint;
}

/** Replaces `$RepresentationID$`, `$Number$`, `$Time$` and `$Bandwidth$`, with a printf width if there is one, and `$$`. */
export function expandTemplate(
  template: string,
  values: { readonly id: string; readonly bandwidth: number | null; readonly number?: number; readonly time?: bigint },
  location: SourceLocation,
): string {
  const fault = (reason: string): Error => manifestFault(location, `in the template "${shorten(template)}", ${reason}`);
  const parts = template.split('$');
  // Identifiers are enclosed in dollar signs, so that the parts alternate between text and identifier.
  if (parts.length % 2 === 0) throw fault('a $ has no partner');
  return parts
    .map((part, index) => {
      if (index % 2 === 0) return part;
      if (part === '') return '$';
      const match = /^(RepresentationID|Number|Time|Bandwidth)(?:%0(\d{1,2})d)?$/.exec(part);
      if (match === null) throw fault(`$${part}$ is no identifier that is known`);
      const [, name, width] = match;
      if (name === 'RepresentationID') {
        if (width !== undefined) throw fault('$RepresentationID$ has no width');
        return values.id;
      }
      const value = name === 'Number' ? values.number : name === 'Time' ? values.time : values.bandwidth;
      if (value === undefined || value === null) throw fault(`$${name}$ has no value here`);
      return String(value).padStart(Number(width ?? 0), '0');
    })
    .join('');
}

/** Number and time of every segment that a template has in its period. */
export function segmentTimes(template: XmlElement, periodS: number | null): SegmentTime[] {
  const timescale = wholeNumber(template, 'timescale') ?? 1;
  if (timescale === 0) throw manifestFault(template.location, 'SegmentTemplate@timescale is 0');
  const first = wholeNumber(template, 'startNumber') ?? 1;
  const timeline = childNamed(template, 'SegmentTimeline');
  if (timeline !== null) return timelineTimes(timeline, first, { template, timescale, periodS });
  const ticks = wholeNumber(template, 'duration');
  if (ticks === null || ticks === 0)
    throw manifestFault(template.location, 'the SegmentTemplate has neither a duration nor a SegmentTimeline');
  const last = wholeNumber(template, 'endNumber');
  if (last === null && periodS === null)
    throw manifestFault(template.location, 'the number of segments is unknown: neither Period nor MPD has a duration');
  // Durations are rounded: a hundredth of a segment is subtracted, so that rounding adds no empty segment.
  const count = last === null ? Math.ceil((periodS! * timescale) / ticks - 0.01) : last - first + 1;
  if (count > SEGMENTS_MAX) throw tooManySegments(template);
  return Array.from({ length: Math.max(0, count) }, (_, index) => ({
    number: first + index,
    time: BigInt(index) * BigInt(ticks) + offsetOf(template),
  }));
}

interface TimelineContext {
  readonly template: XmlElement;
  readonly timescale: number;
  readonly periodS: number | null;
}

function timelineTimes(timeline: XmlElement, first: number, context: TimelineContext): SegmentTime[] {
  const rows = childrenNamed(timeline, 'S');
  if (rows.length === 0) throw manifestFault(timeline.location, 'the SegmentTimeline has no S');
  const times: SegmentTime[] = [];
  let time = 0n;
  let number = first;
  for (const [index, row] of rows.entries()) {
    time = parseTicks(row, 't') ?? time;
    number = wholeNumber(row, 'n') ?? number;
    const duration = parseTicks(row, 'd');
    if (duration === null || duration === 0n) throw manifestFault(row.location, 'the S has no duration d');
    const repeats = parseRepeats(row, { ...context, time, duration, next: rows[index + 1] ?? null });
    if (times.length + repeats + 1 > SEGMENTS_MAX) throw tooManySegments(timeline);
    for (let left = repeats; left >= 0; left -= 1) {
      times.push({ number, time });
      time += duration;
      number += 1;
    }
  }
  return times;
}

interface RowContext extends TimelineContext {
  readonly time: bigint;
  readonly duration: bigint;
  /** The S that follows. */
  readonly next: XmlElement | null;
}

/** S@r. A value of −1 repeats up to the next S@t or to the end of the period. */
function parseRepeats(row: XmlElement, context: RowContext): number {
  const { template, timescale, periodS, time, duration } = context;
  const text = row.attributes['r'] ?? '0';
  if (!/^(-1|\d{1,9})$/.test(text))
    throw manifestFault(row.location, `S@r is "${shorten(text)}", but must be a whole number or -1`);
  if (text !== '-1') return Number(text);
  const nextTime = context.next === null ? null : parseTicks(context.next, 't');
  if (context.next !== null && nextTime === null)
    throw manifestFault(row.location, 'S@r is -1, but the next S has no t');
  if (nextTime === null && periodS === null)
    throw manifestFault(row.location, 'S@r is -1, but neither Period nor MPD has a duration');
  const end = nextTime ?? offsetOf(template) + BigInt(Math.round(periodS! * timescale));
  if (end <= time) throw manifestFault(row.location, 'S@r is -1, but no time is left to fill');
  return Number((end - time + duration - 1n) / duration) - 1;
}

const offsetOf = (template: XmlElement): bigint => parseTicks(template, 'presentationTimeOffset') ?? 0n;

const tooManySegments = (element: XmlElement): Error =>
  manifestFault(element.location, `a Representation has at most ${SEGMENTS_MAX} segments`);

function parseTicks(element: XmlElement, name: string): bigint | null {
  const text = element.attributes[name];
  if (text === undefined) return null;
  if (!/^\d{1,20}$/.test(text)) throw notWhole(element, name, text);
  return BigInt(text);
}

/** Null if the attribute is absent. */
export function wholeNumber(element: XmlElement, name: string): number | null {
  const text = element.attributes[name];
  if (text === undefined) return null;
  if (!/^\d{1,15}$/.test(text)) throw notWhole(element, name, text);
  return Number(text);
}

const notWhole = (element: XmlElement, name: string, text: string): Error =>
  manifestFault(element.location, `${element.name}@${name} is "${shorten(text)}", but must be a whole number`);

/**
 * Seconds of an xs:duration such as `PT1H2M3.5S`; null if the attribute is absent. Years and months must be 0, since their length
 * varies.
 */
export function parseXsDuration(element: XmlElement, name: string): number | null {
  const text = element.attributes[name];
  if (text === undefined) return null;
  const match =
    /^P(?:0+Y)?(?:0+M)?(?:(\d{1,5})D)?(?:T(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,9}(?:\.\d{1,12})?)S)?)?$/.exec(text);
  if (match === null || /[PT]$/.test(text))
    throw manifestFault(
      element.location,
      `${element.name}@${name} is "${shorten(text)}", but must be a duration such as PT1H2M3.5S`,
    );
  const [days, hours, minutes, seconds] = match.slice(1).map((part) => Number(part ?? 0));
  return ((days! * 24 + hours!) * 60 + minutes!) * 60 + seconds!;
}
