// Shared by both kinds of HLS playlist: keys, references to whole assets, and the playlist library behind the line check.

import HLS from 'hls-parser';
import { AttributeList, type PlaylistLine } from './hls-lines.ts';
import { manifestFault, resolveUri, type AssetReference, type SourceLocation, type TitleRoot } from './manifest.ts';

const METHODS = /^(NONE|AES-128|SAMPLE-AES|SAMPLE-AES-CTR)$/;

/**
 * The key file that a tag names, if it is an asset of the title. Keys of DRM systems, and those that a key server on another
 * host issues, are left unchanged: players fetch them there.
 */
export function parseKey(line: PlaylistLine, baseUrl: string, titleRoot: TitleRoot): AssetReference[] {
  const { location, tag } = line;
  const attributes = new AttributeList(line);
  const method = attributes.required(
    'METHOD',
    attributes.matching('METHOD', METHODS, 'NONE, AES-128, SAMPLE-AES or SAMPLE-AES-CTR'),
  );
  attributes.matching('IV', /^0[xX][0-9A-Fa-f]{1,32}$/, '0x and up to 32 hexadecimal digits');
  const quotedUri = attributes.quoted('URI');
  if (method === 'NONE') {
    if (quotedUri !== null) throw manifestFault(location, `#${tag}: METHOD=NONE has no URI`);
    return [];
  }
  const uri = attributes.required('URI', quotedUri);
  const format = attributes.quoted('KEYFORMAT') ?? 'identity';
  if (format !== 'identity' || /^[A-Za-z][A-Za-z0-9+.-]*:/.test(uri)) return [];
  return [wholeAsset(resolveUri(uri, { baseUrl, titleRoot, location }), location)];
}

export const wholeAsset = (path: string, location: SourceLocation): AssetReference => ({
  path,
  location,
  rangeEnd: null,
  sidxOffset: null,
});

export function parseWithLibrary(text: string, path: string): ReturnType<typeof HLS.parse> {
  // The library would print what it tolerates; the line check has refused whatever of that matters.
  HLS.setOptions({ silent: true, strictMode: false });
  try {
    return HLS.parse(text);
  } catch (error) {
    throw manifestFault(
      { path, line: 1 },
      `the playlist library refuses it: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}
