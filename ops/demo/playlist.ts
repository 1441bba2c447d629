// Parses as much HLS (RFC 8216bis) as the demo player needs: variants by pathway, their renditions, segments with byte ranges,
// and keys. Unknown lines are ignored, as the RFC requires of clients.

interface Variant {
  readonly pathway: string;
  readonly bandwidth: number;
  readonly audio: string | null;
  readonly subtitles: string | null;
  readonly url: string;
}

interface MediaRendition {
  readonly type: string;
  readonly group: string;
  readonly name: string;
  readonly isDefault: boolean;
  readonly url: string;
}

export interface MultivariantPlaylist {
  readonly steering: { readonly serverUri: string; readonly pathway: string } | null;
  readonly variants: readonly Variant[];
  readonly media: readonly MediaRendition[];
}

/** A request of a player: a whole file, or its bytes `first` to `last`. */
export interface MediaRequest {
  readonly url: string;
  readonly first: number | null;
  readonly last: number | null;
}

export interface MediaPlaylist {
  /** Keys and initialization segments, in the order of their first use. */
  readonly prerequisites: readonly MediaRequest[];
  readonly segments: readonly MediaRequest[];
  readonly ended: boolean;
}

/** Throws if the text is not a multivariant playlist. */
export function parseMultivariantPlaylist(text: string, url: string): MultivariantPlaylist {
  const lines = splitLines(text);
  const variants: Variant[] = [];
  const media: MediaRendition[] = [];
  let steering: MultivariantPlaylist['steering'] = null;
  for (const [at, line] of lines.entries()) {
    if (line.startsWith('#EXT-X-STREAM-INF:')) {
      const attributes = parseAttributes(line);
      const uri = lines.slice(at + 1).find((next) => !next.startsWith('#'));
      if (uri === undefined) throw new Error(`${url}: the last variant has no URI`);
      variants.push({
        pathway: attributes.get('PATHWAY-ID') ?? '.',
        bandwidth: Number(attributes.get('BANDWIDTH') ?? 0),
        audio: attributes.get('AUDIO') ?? null,
        subtitles: attributes.get('SUBTITLES') ?? null,
        url: new URL(uri, url).href,
      });
    } else if (line.startsWith('#EXT-X-MEDIA:')) {
      const attributes = parseAttributes(line);
      const uri = attributes.get('URI');
      if (uri === undefined) continue;
      media.push({
        type: attributes.get('TYPE') ?? '',
        group: attributes.get('GROUP-ID') ?? '',
        name: attributes.get('NAME') ?? '',
        isDefault: attributes.get('DEFAULT') === 'YES',
        url: new URL(uri, url).href,
      });
    } else if (line.startsWith('#EXT-X-CONTENT-STEERING:')) {
      const attributes = parseAttributes(line);
      steering = {
        serverUri: new URL(attributes.get('SERVER-URI') ?? '', url).href,
        pathway: attributes.get('PATHWAY-ID') ?? '.',
      };
    }
  }
  if (variants.length === 0) throw new Error(`${url}: no variant in the multivariant playlist`);
  return { steering, variants, media };
}

/** Throws if the text is not a media playlist. */
export function parseMediaPlaylist(text: string, url: string): MediaPlaylist {
  const prerequisites = new Map<string, MediaRequest>();
  const segments: MediaRequest[] = [];
  let range: { length: number; offset: number | null } | null = null;
  let previous: { url: string; end: number } | null = null;
  let ended = false;
  for (const line of splitLines(text)) {
    if (line.startsWith('#EXT-X-MAP:')) {
      const attributes = parseAttributes(line);
      const initRange = parseByteRange(attributes.get('BYTERANGE'));
      const init = mediaRequest(
        new URL(attributes.get('URI') ?? '', url).href,
        initRange?.offset ?? 0,
        initRange?.length ?? null,
      );
      prerequisites.set(`${init.url} ${init.first}`, init);
    } else if (line.startsWith('#EXT-X-KEY:')) {
      const uri = parseAttributes(line).get('URI');
      if (uri !== undefined) prerequisites.set(uri, mediaRequest(new URL(uri, url).href, 0, null));
    } else if (line.startsWith('#EXT-X-BYTERANGE:')) {
      range = parseByteRange(line.slice(line.indexOf(':') + 1));
    } else if (line === '#EXT-X-ENDLIST') {
      ended = true;
    } else if (!line.startsWith('#')) {
      const href = new URL(line, url).href;
      // RFC 8216 4.3.2.2: a range without an offset begins where the previous range of the same file ended.
      const offset: number = range?.offset ?? (previous?.url === href ? previous.end : 0);
      segments.push(mediaRequest(href, offset, range?.length ?? null));
      previous = range === null ? null : { url: href, end: offset + range.length };
      range = null;
    }
  }
  if (segments.length === 0) throw new Error(`${url}: no segment in the media playlist`);
  return { prerequisites: [...prerequisites.values()], segments, ended };
}

const mediaRequest = (url: string, offset: number, length: number | null): MediaRequest => ({
  url,
  first: length === null ? null : offset,
  last: length === null ? null : offset + length - 1,
});

function parseByteRange(text: string | undefined): { length: number; offset: number | null } | null {
  const match = /^(\d+)(?:@(\d+))?$/.exec(text ?? '');
  return match === null ? null : { length: Number(match[1]), offset: match[2] === undefined ? null : Number(match[2]) };
}

function splitLines(text: string): string[] {
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== '');
  if (lines[0]?.trim() !== '#EXTM3U') throw new Error('no #EXTM3U in the first line');
  return lines;
}

function parseAttributes(line: string): Map<string, string> {
  const attributes = new Map<string, string>();
  for (const match of line.slice(line.indexOf(':') + 1).matchAll(/([A-Z0-9-]+)=(?:"([^"]*)"|([^,]*))/g))
    attributes.set(match[1]!, match[2] ?? match[3] ?? '');
  return attributes;
}
