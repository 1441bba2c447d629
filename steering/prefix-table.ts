// Longest-prefix match over IPv4 and IPv6 networks. Networks nest and never cross, so a set of them flattens into
// disjoint runs of addresses, each owned by the longest network that covers it: a lookup is one binary search, and a
// table of some million rows costs about 12 bytes a run in IPv4.

import ipaddr from 'ipaddr.js';

/** An address as a number that can be compared: 32 bits fit a number, 128 need a bigint. */
export interface Address {
  readonly bits: 32 | 128;
  readonly key: number | bigint;
}

export interface Prefix {
  readonly bits: 32 | 128;
  readonly key: number | bigint;
  readonly length: number;
}

export interface Entry<V> {
  readonly prefix: Prefix;
  readonly value: V;
}

export interface Match<V> {
  readonly prefix: Prefix;
  readonly value: V;
}

/** Null where the text is no address. A zone (`%eth0`) is dropped; `::ffff:192.0.2.1` is 192.0.2.1. */
export function parseAddress(text: string): Address | null {
  const plain = text.replace(/%.*$/s, '');
  if (ipaddr.IPv4.isValidFourPartDecimal(plain)) return addressOf(ipaddr.IPv4.parse(plain).toByteArray());
  if (!plain.includes(':') || !ipaddr.IPv6.isValid(plain)) return null;
  const six = ipaddr.IPv6.parse(plain);
  return addressOf(six.isIPv4MappedAddress() ? six.toIPv4Address().toByteArray() : six.toByteArray());
}

/** A network as people write it, or why it is none. The problem completes "VALUE …". */
export function parsePrefix(text: string): Prefix | { readonly problem: string } {
  const match = /^([0-9A-Fa-f:.]+)(?:\/(\d{1,3}))?$/.exec(text);
  const four = match !== null && ipaddr.IPv4.isValidFourPartDecimal(match[1]!);
  const six = match !== null && !four && match[1]!.includes(':') && ipaddr.IPv6.isValid(match[1]!);
  if (match === null || (!four && !six))
    return { problem: 'is no network; write one as 192.0.2.0/24 or 2001:db8::/32' };
  const bits = four ? 32 : 128;
  const length = match[2] === undefined ? bits : Number(match[2]);
  if (length > bits) return { problem: `has a prefix longer than ${bits} bits` };
  const parsed = four ? ipaddr.IPv4.parse(match[1]!) : ipaddr.IPv6.parse(match[1]!);
  if ('isIPv4MappedAddress' in parsed && parsed.isIPv4MappedAddress())
    return {
      problem: `is IPv4 in IPv6 clothes; write ${parsed.toIPv4Address().toString()}/${Math.max(0, length - 96)}`,
    };
  const prefix: Prefix = { ...maskOf(addressOf(parsed.toByteArray()), length), length };
  if (prefix.key !== addressOf(parsed.toByteArray()).key)
    return { problem: `has bits set beyond its length; write ${formatPrefix(prefix)}` };
  return prefix;
}

export function formatPrefix(prefix: Prefix): string {
  const bytes: number[] = [];
  let left = BigInt(prefix.key);
  for (let at = 0; at < prefix.bits / 8; at += 1) {
    bytes.unshift(Number(left & 255n));
    left >>= 8n;
  }
  return `${ipaddr.fromByteArray(bytes).toString()}/${prefix.length}`;
}

export class PrefixTable<V> {
  readonly #families: Readonly<Record<32 | 128, Runs<V>>>;

  /** Two entries of one prefix: the later one wins; whoever builds refuses them if that is an error. */
  constructor(entries: readonly Entry<V>[]) {
    this.#families = {
      32: flatten(entries.filter((entry) => entry.prefix.bits === 32)),
      128: flatten(entries.filter((entry) => entry.prefix.bits === 128)),
    };
  }

  longest(address: Address): Match<V> | null {
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

/** Run i covers addresses from starts[i] up to starts[i + 1]; a null owner is a gap. */
interface Runs<V> {
  readonly starts: readonly (number | bigint)[];
  readonly owners: readonly (Entry<V> | null)[];
}

function flatten<V>(entries: readonly Entry<V>[]): Runs<V> {
  const sorted = [...entries].sort((a, b) =>
    a.prefix.key === b.prefix.key ? a.prefix.length - b.prefix.length : a.prefix.key < b.prefix.key ? -1 : 1,
  );
  const starts: (number | bigint)[] = [];
  const owners: (Entry<V> | null)[] = [];
  const begin = (start: number | bigint, owner: Entry<V> | null): void => {
    // A network that begins where another ended or began takes over its run.
    if (starts.length > 0 && starts.at(-1) === start) owners[owners.length - 1] = owner;
    else {
      starts.push(start);
      owners.push(owner);
    }
  };
  const open: { readonly entry: Entry<V>; readonly next: number | bigint }[] = [];
  const closeInnermost = (): void => {
    const { next } = open.pop()!;
    begin(next, open.at(-1)?.entry ?? null);
  };
  for (const entry of sorted) {
    while (open.length > 0 && open.at(-1)!.next <= entry.prefix.key) closeInnermost();
    begin(entry.prefix.key, entry);
    open.push({ entry, next: nextOf(entry.prefix) });
  }
  while (open.length > 0) closeInnermost();
  return { starts, owners };
}

/** The first address after the network. */
const nextOf = ({ bits, key, length }: Prefix): number | bigint =>
  typeof key === 'number' ? key + 2 ** (bits - length) : key + (1n << BigInt(bits - length));

function maskOf(address: Address, length: number): Address {
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
