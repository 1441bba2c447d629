// Longest-prefix match over IPv4 and IPv6 networks. Networks either nest or are disjoint, so a set of them flattens into
// disjoint address ranges, each owned by the longest network that covers it. A lookup is one binary search, and an IPv4 table
// costs about 12 bytes per range.

import ipaddr from 'ipaddr.js';

/** An address as a comparable number: a number for IPv4, a bigint for IPv6. */
export interface Address {
  readonly bits: 32 | 128;
  readonly key: number | bigint;
}

export interface Prefix {
  readonly bits: 32 | 128;
  readonly key: number | bigint;
  /** Bits of the prefix. */
  readonly length: number;
}

export interface PrefixEntry<V> {
  readonly prefix: Prefix;
  readonly value: V;
}

/** Some proxies write the client's port behind its address, and IPv6 in brackets. */
const WITH_PORT = /^(?:\[([^\]]*)\](?::\d{1,5})?|([\d.]+):\d{1,5})$/;

/** Null if the text is not an address. A port and a zone (`%eth0`) are ignored; `::ffff:192.0.2.1` is 192.0.2.1. */
export function parseAddress(text: string): Address | null {
  const withPort = WITH_PORT.exec(text.trim());
  const plain = (withPort?.[1] ?? withPort?.[2] ?? text.trim()).replace(/%.*$/s, '');
  if (ipaddr.IPv4.isValidFourPartDecimal(plain)) return addressOf(ipaddr.IPv4.parse(plain).toByteArray());
  if (!plain.includes(':') || !ipaddr.IPv6.isValid(plain)) return null;
  const six = ipaddr.IPv6.parse(plain);
  return addressOf(six.isIPv4MappedAddress() ? six.toIPv4Address().toByteArray() : six.toByteArray());
}

/** Parses a network in CIDR notation. A problem is worded to complete "VALUE …". */
export function parsePrefix(text: string): Prefix | { readonly problem: string } {
  const match = /^([0-9A-Fa-f:.]+)(?:\/(\d{1,3}))?$/.exec(text);
  const four = match !== null && ipaddr.IPv4.isValidFourPartDecimal(match[1]!);
  const six = match !== null && !four && match[1]!.includes(':') && ipaddr.IPv6.isValid(match[1]!);
  if (match === null || (!four && !six))
    return { problem: 'is not a network; write one as 192.0.2.0/24 or 2001:db8::/32' };
  const bits = four ? 32 : 128;
  const length = match[2] === undefined ? bits : Number(match[2]);
  if (length > bits) return { problem: `has a prefix longer than ${bits} bits` };
  const parsed = four ? ipaddr.IPv4.parse(match[1]!) : ipaddr.IPv6.parse(match[1]!);
  if ('isIPv4MappedAddress' in parsed && parsed.isIPv4MappedAddress())
    return {
      problem: `is an IPv4-mapped IPv6 network; write ${parsed.toIPv4Address().toString()}/${Math.max(0, length - 96)}`,
    };
  const prefix: Prefix = { ...maskAddress(addressOf(parsed.toByteArray()), length), length };
  if (prefix.key !== addressOf(parsed.toByteArray()).key)
    return { problem: `has bits set beyond its length; write ${formatPrefix(prefix)}` };
  return prefix;
}

export function formatPrefix(prefix: Prefix): string {
  const bytes: number[] = [];
  let rest = BigInt(prefix.key);
  for (let index = 0; index < prefix.bits / 8; index += 1) {
    bytes.unshift(Number(rest & 255n));
    rest >>= 8n;
  }
  return `${ipaddr.fromByteArray(bytes).toString()}/${prefix.length}`;
}

export class PrefixTable<V> {
  readonly #families: Readonly<Record<32 | 128, AddressRanges<V>>>;

  /** Of two entries with one prefix the later wins. A caller for which that is an error must check before. */
  constructor(entries: readonly PrefixEntry<V>[]) {
    this.#families = {
      32: flatten(entries.filter((entry) => entry.prefix.bits === 32)),
      128: flatten(entries.filter((entry) => entry.prefix.bits === 128)),
    };
  }

  longest(address: Address): PrefixEntry<V> | null {
    const { starts, owners } = this.#families[address.bits];
    let low = 0;
    let high = starts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (starts[middle]! <= address.key) low = middle + 1;
      else high = middle;
    }
    return low === 0 ? null : (owners[low - 1] ?? null);
  }
}

/** Range i covers the addresses from starts[i] up to, and not including, starts[i + 1]. A null owner is a gap. */
interface AddressRanges<V> {
  readonly starts: readonly (number | bigint)[];
  readonly owners: readonly (PrefixEntry<V> | null)[];
}

function flatten<V>(entries: readonly PrefixEntry<V>[]): AddressRanges<V> {
  const sorted = [...entries].sort((a, b) =>
    a.prefix.key === b.prefix.key ? a.prefix.length - b.prefix.length : a.prefix.key < b.prefix.key ? -1 : 1,
  );
  const starts: (number | bigint)[] = [];
  const owners: (PrefixEntry<V> | null)[] = [];
  const beginRange = (start: number | bigint, owner: PrefixEntry<V> | null): void => {
    // A network that begins where another began or ended takes over its range.
    if (starts.length > 0 && starts.at(-1) === start) owners[owners.length - 1] = owner;
    else {
      starts.push(start);
      owners.push(owner);
    }
  };
  /** Networks that cover the current address, innermost last. */
  const open: { readonly entry: PrefixEntry<V>; readonly next: number | bigint }[] = [];
  const closeInnermost = (): void => {
    const { next } = open.pop()!;
    beginRange(next, open.at(-1)?.entry ?? null);
  };
  for (const entry of sorted) {
    while (open.length > 0 && open.at(-1)!.next <= entry.prefix.key) closeInnermost();
    beginRange(entry.prefix.key, entry);
    open.push({ entry, next: addressAfter(entry.prefix) });
  }
  while (open.length > 0) closeInnermost();
  return { starts, owners };
}

/** The first address beyond the network. */
const addressAfter = ({ bits, key, length }: Prefix): number | bigint =>
  typeof key === 'number' ? key + 2 ** (bits - length) : key + (1n << BigInt(bits - length));

function maskAddress(address: Address, length: number): Address {
  if (typeof address.key === 'number') {
    const size = 2 ** (32 - length);
    return { bits: 32, key: Math.floor(address.key / size) * size };
  }
  const shift = BigInt(128 - length);
  return { bits: 128, key: (address.key >> shift) << shift };
}

function addressOf(bytes: readonly number[]): Address {
  if (bytes.length === 4) return { bits: 32, key: bytes.reduce((key, byte) => key * 256 + byte, 0) };
  return { bits: 128, key: bytes.reduce((key, byte) => (key << 8n) | BigInt(byte), 0n) };
}
