// Small hash functions on which processes must agree. None of them is secure against deliberate collisions.

/** The finalizer of MurmurHash3: each bit of the input changes half of the output bits. Returns an unsigned 32-bit integer. */
export function murmurFinalizer(value: number): number {
  let hash = value | 0;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** FNV-1a over UTF-16 code units, then a finalizer, because FNV spreads a change of the last character poorly. */
export function hash32(text: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at += 1) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  return murmurFinalizer(hash);
}
