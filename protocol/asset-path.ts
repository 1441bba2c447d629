// The one spelling of a path (RFC 3986 6.2.2). Import, appliances and purges name assets by it: two spellings of one path that were kept apart
// would be an asset that is in the catalog and that no appliance knows.

/**
 * Unescapes unreserved characters and writes hexadecimal digits in upper case. A path that two parsers might read in two ways is refused, with
 * a problem worded to complete "PATH …".
 */
export function normalizedPath(path: string): string | { readonly problem: string } {
  let problem: string | null = null;
  const normalized = path.replaceAll(/%(.{0,2})/gs, (_, hex: string) => {
    const code = /^[0-9A-Fa-f]{2}$/.test(hex) ? Number.parseInt(hex, 16) : null;
    if (code === null) problem ??= `has a broken escape %${hex}`;
    else if (code < 0x20 || code === 0x7f) problem ??= `has an escaped control character %${hex}`;
    else if (code === 0x5c) problem ??= 'has an escaped backslash';
    const char = String.fromCharCode(code ?? 0);
    return /[A-Za-z0-9._~-]/.test(char) ? char : `%${hex.toUpperCase()}`;
  });
  // A server that decodes before it splits reads `..%2f` as a dot segment.
  if (/(?:^|\/)\.{1,2}(?:\/|$)/.test(normalized.replaceAll('%2F', '/'))) problem ??= 'has a . or .. segment';
  return problem === null ? normalized : { problem };
}
