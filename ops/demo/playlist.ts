// Just enough HLS (RFC 8216bis) to play a title as a player does: variants by pathway, their renditions, segments with byte
// ranges, keys. Lines it does not know are skipped, as the RFC asks of a client.

export interface Variant {
  readonly pathway: string;
  readonly bandwidth: number;
  readonly audio: string | null;
  readonly subtitles: string | null;
  readonly url: string;
}

export interface MediaRendition {
  readonly type: string;
  readonly group: string;
  readonly name: string;
  readonly isDefault: boolean;
  readonly url: string;
}

export interface MasterPlaylist {
  readonly steering: { readonly serverUri: string; readonly pathway: string } | null;
  readonly variants: readonly Variant[];
  readonly media: readonly MediaRendition[];
}

/** A request that a player makes: a whole file, or bytes `first` to `last` of one. */
export interface Piece {
  readonly url: string;
  readonly first: number | null;
  readonly last: number | null;
}

export interface MediaPlaylist {
  /** Keys and initialisation segments, in the order of their first use. */
  readonly heads: readonly Piece[];
  readonly segments: readonly Piece[];
  readonly ended: boolean;
}

/** Throws where the text is no multivariant playlist. */
export function parseMaster(text: string, url: string): MasterPlaylist {
  const lines = linesOf(text);
  const variants: Variant[] = [];
  const media: MediaRendition[] = [];
  let steering: MasterPlaylist['steering'] = null;
  for (const [at, line] of lines.entries()) {
    if (line.startsWith('#EXT-X-STREAM-INF:')) {
      const attributes = attributesOf(line);
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
      const attributes = attributesOf(line);
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
      const attributes = attributesOf(line);
      steering = {
        serverUri: new URL(attributes.get('SERVER-URI') ?? '', url).href,
        pathway: attributes.get('PATHWAY-ID') ?? '.',
      };
    }
  }
  if (variants.length === 0) throw new Error(`${url}: no variant in the multivariant playlist`);
  return { steering, variants, media };
}

/** Throws where the text is no media playlist. */
export function parseMedia(text: string, url: string): MediaPlaylist {
  const heads = new Map<string, Piece>();
  const segments: Piece[] = [];
  let range: { length: number; offset: number | null } | null = null;
  let before: { url: string; end: number } | null = null;
  let ended = false;
  for (const line of linesOf(text)) {
    if (line.startsWith('#EXT-X-MAP:')) {
      const attributes = attributesOf(line);
      const part = byteRange(attributes.get('BYTERANGE'));
      const head = piece(new URL(attributes.get('URI') ?? '', url).href, part?.offset ?? 0, part?.length ?? null);
      heads.set(`${head.url} ${head.first}`, head);
    } else if (line.startsWith('#EXT-X-KEY:')) {
      const uri = attributesOf(line).get('URI');
      if (uri !== undefined) heads.set(uri, piece(new URL(uri, url).href, 0, null));
    } else if (line.startsWith('#EXT-X-BYTERANGE:')) {
      range = byteRange(line.slice(line.indexOf(':') + 1));
    } else if (line === '#EXT-X-ENDLIST') {
      ended = true;
    } else if (!line.startsWith('#')) {
      const href = new URL(line, url).href;
      // RFC 8216 4.3.2.2: without an offset the range begins where the one before it in the same file ended.
      const offset: number = range?.offset ?? (before?.url === href ? before.end : 0);
      segments.push(piece(href, offset, range?.length ?? null));
      before = range === null ? null : { url: href, end: offset + range.length };
      range = null;
    }
  }
  if (segments.length === 0) throw new Error(`${url}: no segment in the media playlist`);
  return { heads: [...heads.values()], segments, ended };
}

const piece = (url: string, offset: number, length: number | null): Piece => ({
  url,
  first: length === null ? null : offset,
  last: length === null ? null : offset + length - 1,
});

function byteRange(text: string | undefined): { length: number; offset: number | null } | null {
  const match = /^(\d+)(?:@(\d+))?$/.exec(text ?? '');
  return match === null ? null : { length: Number(match[1]), offset: match[2] === undefined ? null : Number(match[2]) };
}

function linesOf(text: string): string[] {
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== '');
  if (lines[0]?.trim() !== '#EXTM3U') throw new Error('no #EXTM3U in the first line');
  return lines;
}

function attributesOf(line: string): Map<string, string> {
  const attributes = new Map<string, string>();
  for (const match of line.slice(line.indexOf(':') + 1).matchAll(/([A-Z0-9-]+)=(?:"([^"]*)"|([^,]*))/g))
    attributes.set(match[1]!, match[2] ?? match[3] ?? '');
  return attributes;
}
