// The arithmetic of DASH: names from templates, numbers and times of segments, durations (ISO/IEC 23009-1, 5.3.9.4 and 5.3.9.6).
// Times are bigint: @t may exceed 2⁵³ in a timescale of ten million ticks.

import { clip, complain, SEGMENTS_MAX, type Place } from './manifest.ts';
import { childNamed, childrenNamed, type XmlElement } from './xml.ts';

export interface SegmentTime {
  readonly number: number;
  readonly time: bigint;
}

/** Replaces `$RepresentationID$ $Number$ $Time$ $Bandwidth$`, with a printf width where given, and `$$`. */
export function expandTemplate(
  template: string,
  values: { readonly id: string; readonly bandwidth: number | null; readonly number?: number; readonly time?: bigint },
  place: Place,
): string {
  const refuse = (what: string): Error => complain(place, `in the template "${clip(template)}", ${what}`);
  const parts = template.split('$');
  // Identifiers stand between pairs of dollars, so that the parts alternate: text, identifier, text.
  if (parts.length % 2 === 0) throw refuse('a $ has no partner');
  return parts
    .map((part, at) => {
      if (at % 2 === 0) return part;
      if (part === '') return '$';
      const match = /^(RepresentationID|Number|Time|Bandwidth)(?:%0(\d{1,2})d)?$/.exec(part);
      if (match === null) throw refuse(`$${part}$ is no identifier that is known`);
      const [, name, width] = match;
      if (name === 'RepresentationID') {
        if (width !== undefined) throw refuse('$RepresentationID$ has no width');
        return values.id;
      }
      const value = name === 'Number' ? values.number : name === 'Time' ? values.time : values.bandwidth;
      if (value === undefined || value === null) throw refuse(`$${name}$ has no value here`);
      return String(value).padStart(Number(width ?? 0), '0');
    })
    .join('');
}

/** Number and time of every segment of a template in its period. */
export function segmentTimes(template: XmlElement, periodS: number | null): SegmentTime[] {
  const timescale = wholeNumber(template, 'timescale') ?? 1;
  if (timescale === 0) throw complain(template.place, 'SegmentTemplate@timescale is 0');
  const first = wholeNumber(template, 'startNumber') ?? 1;
  const timeline = childNamed(template, 'SegmentTimeline');
  if (timeline !== null) return timelineTimes(timeline, first, { template, timescale, periodS });
  const ticks = wholeNumber(template, 'duration');
  if (ticks === null || ticks === 0)
    throw complain(template.place, 'the SegmentTemplate has neither a duration nor a SegmentTimeline');
  const last = wholeNumber(template, 'endNumber');
  if (last === null && periodS === null)
    throw complain(template.place, 'the number of segments is unknown: neither Period nor MPD has a duration');
  // A hundredth of a segment less: durations are rounded, and a segment of no length does not exist.
  const count = last === null ? Math.ceil((periodS! * timescale) / ticks - 0.01) : last - first + 1;
  if (count > SEGMENTS_MAX) throw tooMany(template);
  return Array.from({ length: Math.max(0, count) }, (_, at) => ({
    number: first + at,
    time: BigInt(at) * BigInt(ticks) + offsetOf(template),
  }));
}

function timelineTimes(
  timeline: XmlElement,
  first: number,
  in_: { readonly template: XmlElement; readonly timescale: number; readonly periodS: number | null },
): SegmentTime[] {
  const rows = childrenNamed(timeline, 'S');
  if (rows.length === 0) throw complain(timeline.place, 'the SegmentTimeline has no S');
  const times: SegmentTime[] = [];
  let time = 0n;
  let number = first;
  for (const [at, row] of rows.entries()) {
    time = ticksOf(row, 't') ?? time;
    number = wholeNumber(row, 'n') ?? number;
    const duration = ticksOf(row, 'd');
    if (duration === null || duration === 0n) throw complain(row.place, 'the S has no duration d');
    const repeat = repeatOf(row, { time, duration, next: rows[at + 1] ?? null, ...in_ });
    if (times.length + repeat + 1 > SEGMENTS_MAX) throw tooMany(timeline);
    for (let left = repeat; left >= 0; left -= 1) {
      times.push({ number, time });
      time += duration;
      number += 1;
    }
  }
  return times;
}

/** S@r; −1 repeats up to the next S@t or the end of the period. */
function repeatOf(
  row: XmlElement,
  at: {
    readonly time: bigint;
    readonly duration: bigint;
    readonly next: XmlElement | null;
    readonly template: XmlElement;
    readonly timescale: number;
    readonly periodS: number | null;
  },
): number {
  const text = row.attributes['r'] ?? '0';
  if (!/^(-1|\d{1,9})$/.test(text))
    throw complain(row.place, `S@r is "${clip(text)}", but must be a whole number or -1`);
  if (text !== '-1') return Number(text);
  const next = at.next === null ? null : ticksOf(at.next, 't');
  if (at.next !== null && next === null) throw complain(row.place, 'S@r is -1, but the next S has no t');
  if (next === null && at.periodS === null)
    throw complain(row.place, 'S@r is -1, but neither Period nor MPD has a duration');
  const end = next ?? offsetOf(at.template) + BigInt(Math.round(at.periodS! * at.timescale));
  if (end <= at.time) throw complain(row.place, 'S@r is -1, but no time is left to fill');
  return Number((end - at.time + at.duration - 1n) / at.duration) - 1;
}

const offsetOf = (template: XmlElement): bigint => ticksOf(template, 'presentationTimeOffset') ?? 0n;

const tooMany = (element: XmlElement): Error =>
  complain(element.place, `a Representation has at most ${SEGMENTS_MAX} segments`);

function ticksOf(element: XmlElement, name: string): bigint | null {
  const text = element.attributes[name];
  if (text === undefined) return null;
  if (!/^\d{1,20}$/.test(text)) throw notWhole(element, name, text);
  return BigInt(text);
}

/** Null where the attribute is absent. */
export function wholeNumber(element: XmlElement, name: string): number | null {
  const text = element.attributes[name];
  if (text === undefined) return null;
  if (!/^\d{1,15}$/.test(text)) throw notWhole(element, name, text);
  return Number(text);
}

const notWhole = (element: XmlElement, name: string, text: string): Error =>
  complain(element.place, `${element.name}@${name} is "${clip(text)}", but must be a whole number`);

/** Seconds of an xs:duration such as `PT1H2M3.5S`; null where the attribute is absent. Years and months have no length. */
export function readDuration(element: XmlElement, name: string): number | null {
  const text = element.attributes[name];
  if (text === undefined) return null;
  const match =
    /^P(?:0+Y)?(?:0+M)?(?:(\d{1,5})D)?(?:T(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,9}(?:\.\d{1,12})?)S)?)?$/.exec(text);
  if (match === null || /[PT]$/.test(text))
    throw complain(
      element.place,
      `${element.name}@${name} is "${clip(text)}", but must be a duration such as PT1H2M3.5S`,
    );
  const [days, hours, minutes, seconds] = match.slice(1).map((part) => Number(part ?? 0));
  return ((days! * 24 + hours!) * 60 + minutes!) * 60 + seconds!;
}
