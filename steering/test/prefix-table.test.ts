import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatPrefix, parseAddress, parsePrefix, PrefixTable, type Address, type Prefix } from '../prefix-table.ts';

const prefixOf = (text: string): Prefix => {
  const prefix = parsePrefix(text);
  if ('problem' in prefix) throw new Error(`${text} ${prefix.problem}`);
  return prefix;
};

/** The reference: tries every network and keeps the longest that covers the address. */
function searchAll(prefixes: readonly Prefix[], address: Address): string | null {
  let best: Prefix | null = null;
  for (const prefix of prefixes) {
    if (prefix.bits !== address.bits) continue;
    const shift = BigInt(prefix.bits - prefix.length);
    const covers = BigInt(prefix.key) >> shift === BigInt(address.key) >> shift;
    if (covers && (best === null || prefix.length > best.length)) best = prefix;
  }
  return best === null ? null : formatPrefix(best);
}

// Keys vary in a few bits only, so that networks nest, touch and repeat.
const smallKey = (bits: 32 | 128): fc.Arbitrary<bigint> =>
  fc
    .tuple(
      fc.bigInt({ min: 0n, max: 31n }),
      fc.bigInt({ min: 0n, max: 7n }),
      fc.constantFrom(0n, (1n << BigInt(bits)) - 1n),
    )
    .map(([high, low, flip]) => ((high << BigInt(bits - 5)) | low) ^ flip);

const anAddress = (bits: 32 | 128): fc.Arbitrary<Address> =>
  smallKey(bits).map((key) => ({ bits, key: bits === 32 ? Number(key) : key }));

const aPrefix = (bits: 32 | 128): fc.Arbitrary<Prefix> =>
  fc
    .tuple(smallKey(bits), fc.oneof(fc.integer({ min: 0, max: 6 }), fc.integer({ min: bits - 4, max: bits })))
    .map(([key, length]) => {
      const shift = BigInt(bits - length);
      const masked = (key >> shift) << shift;
      return { bits, key: bits === 32 ? Number(masked) : masked, length };
    });

describe('the longest prefix', () => {
  it.each([32, 128] as const)('in random %d-bit tables is the one that an exhaustive search finds', (bits) => {
    fc.assert(
      fc.property(
        fc.array(aPrefix(bits), { maxLength: 40 }),
        fc.array(anAddress(bits), { minLength: 1, maxLength: 20 }),
        (prefixes, addresses) => {
          const table = new PrefixTable(prefixes.map((prefix) => ({ prefix, value: formatPrefix(prefix) })));
          // The first address of every network is tested too, where an off-by-one error would show.
          const edges = prefixes.map(({ key }): Address => ({ bits, key }));
          for (const address of [...addresses, ...edges])
            expect(table.longest(address)?.value ?? null).toBe(searchAll(prefixes, address));
        },
      ),
      { numRuns: 500 },
    );
  });

  it('is looked up per address family: 0.0.0.0/0 covers no IPv6 address', () => {
    const table = new PrefixTable([{ prefix: prefixOf('0.0.0.0/0'), value: 4 }]);
    expect(table.longest(parseAddress('255.255.255.255')!)?.value).toBe(4);
    expect(table.longest(parseAddress('::1')!)).toBeNull();
  });

  it('is found in ::/0 and for the last IPv6 address', () => {
    const table = new PrefixTable([
      { prefix: prefixOf('::/0'), value: 'all' },
      { prefix: prefixOf('ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128'), value: 'last' },
    ]);
    expect(table.longest(parseAddress('ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff')!)?.value).toBe('last');
    expect(table.longest(parseAddress('2001:db8::1')!)?.value).toBe('all');
  });
});

describe('an address', () => {
  it.each([
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['fe80::1%eth0', 'fe80::1'],
    ['192.0.2.7:51008', '192.0.2.7'],
    ['[2001:db8::1]:443', '2001:db8::1'],
    ['[2001:db8::1]', '2001:db8::1'],
  ])('%s equals %s', (text, same) => {
    expect(parseAddress(text)).toEqual(parseAddress(same));
    expect(parseAddress(text)).not.toBeNull();
  });

  it.each([
    '',
    'x',
    '192.0.2',
    '010.0.0.1',
    '1.2.3.4.5',
    '256.1.1.1',
    '0x7f000001',
    ':::',
    '192.0.2.1/24',
    '12345',
    '[192.0.2.1',
    '192.0.2.1:',
    '192.0.2.1:x',
  ])('%j is invalid', (text) => expect(parseAddress(text)).toBeNull());
});

describe('a prefix', () => {
  it.each([
    ['10.0.0.1/8', 'has bits set beyond its length; write 10.0.0.0/8'],
    ['10.0.0.0/33', 'has a prefix longer than 32 bits'],
    ['2001:db8::1/32', 'has bits set beyond its length; write 2001:db8::/32'],
    ['::ffff:10.0.0.0/104', 'is an IPv4-mapped IPv6 network; write 10.0.0.0/8'],
    ['010.0.0.0/8', 'is not a network; write one as 192.0.2.0/24 or 2001:db8::/32'],
    ['10.0.0.0/8/8', 'is not a network; write one as 192.0.2.0/24 or 2001:db8::/32'],
    ['', 'is not a network; write one as 192.0.2.0/24 or 2001:db8::/32'],
  ])('%j %s', (text, problem) => expect(parsePrefix(text)).toEqual({ problem }));

  it('without a length is a single address', () => {
    expect(formatPrefix(prefixOf('192.0.2.7'))).toBe('192.0.2.7/32');
    expect(formatPrefix(prefixOf('2001:db8::7'))).toBe('2001:db8::7/128');
  });
});
