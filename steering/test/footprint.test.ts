import { describe, expect, it } from 'vitest';
import { distanceKm, locateClient } from '../client-location.ts';
import { emptyFootprint, parseFootprint, type Footprint } from '../footprint.ts';
import { noGeoIp, parseGeoIp } from '../geoip.ts';
import { parseAddress } from '../prefix-table.ts';

const mapOf = (zones: unknown): Footprint => parseFootprint(JSON.stringify({ coverageZones: zones }), 'map.json');

const STOCKHOLM = { lat: 59.33, lon: 18.07 };
const MADRID = { lat: 40.42, lon: -3.7 };

describe('a coverage-zone file', () => {
  it('is parsed in the format of Apache Traffic Control', () => {
    const footprint = parseFootprint(
      JSON.stringify({
        revision: 'Mon Dec 21 15:04:01 2015',
        customerName: 'Kabletown',
        coverageZones: {
          'us-co-denver': {
            network: ['192.0.2.0/24', '198.51.100.0/25'],
            network6: ['2001:db8:1::/48'],
            coordinates: { latitude: 39.74, longitude: -104.99 },
            backupZones: { list: ['us-ca-oakland'], fallbackToClosestGroup: false },
          },
          'us-ca-oakland': { network: ['198.51.100.64/26'], network6: [] },
        },
      }),
      'map.json',
    );
    expect(footprint.zones.get('us-co-denver')).toEqual({
      site: 'us-co-denver',
      position: { lat: 39.74, lon: -104.99 },
      prefixes: 3,
      backups: ['us-ca-oakland'],
      nearestAfterBackups: false,
    });
    expect(footprint.locate(parseAddress('198.51.100.70')!)).toEqual({
      site: 'us-ca-oakland',
      prefix: '198.51.100.64/26',
    });
    expect(footprint.locate(parseAddress('198.51.100.1')!)).toEqual({
      site: 'us-co-denver',
      prefix: '198.51.100.0/25',
    });
    expect(footprint.locate(parseAddress('2001:db8:1::9')!)?.site).toBe('us-co-denver');
    expect(footprint.locate(parseAddress('203.0.113.1')!)).toBeNull();
  });

  it.each([
    [
      'an invalid network',
      { a: { network: ['10.0.0.0/40'] } },
      'zone a: network "10.0.0.0/40" has a prefix longer than 32 bits',
    ],
    ['bits beyond the length', { a: { network: ['10.0.0.1/8'] } }, 'write 10.0.0.0/8'],
    [
      'a prefix in two zones',
      { a: { network: ['10.0.0.0/8'] }, b: { network: ['10.0.0.0/8'] } },
      'zone b: network "10.0.0.0/8" is also a network of zone a',
    ],
    ['an IPv6 prefix under network', { a: { network: ['2001:db8::/32'] } }, 'belongs under network6'],
    ['a number for a network', { a: { network: [7] } }, 'zone a: network 7 is not a string'],
    ['a misspelt key', { a: { netwrok: [] } }, 'zone a: "netwrok" is not known'],
    ['a name that is not a site id', { 'US East': {} }, 'zone US East: the name is not a site id'],
    ['coordinates out of range', { a: { coordinates: { latitude: 91, longitude: 0 } } }, 'zone a: coordinates'],
    ['a backup that is not a zone', { a: { backupZones: { list: ['b'] } } }, 'zone a: backupZones names b'],
    ['a zone that is not an object', { a: 7 }, 'zone a: it must be an object'],
  ])('with %s is refused, and the fault names zone and value', (_, zones, message) => {
    expect(() => mapOf(zones)).toThrow(
      expect.objectContaining({ code: 'map_invalid', message: expect.stringContaining(message) as string }),
    );
  });

  it('is refused if it is not JSON or has no zones', () => {
    expect(() => parseFootprint('{', 'm')).toThrow(/m is not a usable map:\n {2}it is not JSON/);
    expect(() => parseFootprint('[]', 'm')).toThrow(/coverageZones/);
  });

  it('is refused with all of its problems at once, up to a bound', () => {
    const networks = Array.from({ length: 50 }, (_, at) => `x${at}`);
    expect(() => mapOf({ a: { network: networks } })).toThrow(/"x0"[\s\S]*"x19"[\s\S]*and 30 more/);
  });
});

async function* linesOf(text: string): AsyncGenerator<string> {
  await Promise.resolve();
  yield* text.split('\n');
}

describe('positions of addresses', () => {
  it('are parsed from GeoLite2 columns by header; rows without a position are skipped', async () => {
    const geoip = await parseGeoIp(
      linesOf(
        'network,geoname_id,postal_code,latitude,longitude,accuracy_radius\n' +
          '1.0.0.0/24,2077456,"8,000",-33.4940,143.2104,1000\n1.0.1.0/24,,,,,\n2001:db8::/32,1,,59.33,18.07,1\n',
      ),
      'g.csv',
    );
    expect(geoip.locate(parseAddress('1.0.0.200')!)).toEqual({ lat: -33.494, lon: 143.2104 });
    expect(geoip.locate(parseAddress('1.0.1.1')!)).toBeNull();
    expect(geoip.locate(parseAddress('2001:db8::1')!)).toEqual(STOCKHOLM);
  });

  it.each([
    ['network,lat\n', 'no column "latitude"'],
    ['network,latitude,longitude\nx,1,2\n', 'g.csv line 2: network "x" is not a network'],
    ['network,latitude,longitude\n1.0.0.0/24,north,2\n', 'latitude north, longitude 2 are out of range'],
    ['', 'is empty'],
  ])('are refused in %j', async (text, message) => {
    await expect(parseGeoIp(linesOf(text), 'g.csv')).rejects.toThrow(message);
  });
});

describe('the location of a client', () => {
  const footprint = mapOf({ north: { network: ['127.1.0.0/16'] }, south: { network: ['127.2.0.0/16'] } });
  const sites = new Map([
    ['north', STOCKHOLM],
    ['south', MADRID],
    ['nowhere', null],
  ]);
  const paris = { locate: () => ({ lat: 48.86, lon: 2.35 }) };
  const inputs = { footprint, geoip: noGeoIp, defaultSite: null, sites };

  it('is the site of the longest prefix, with distances measured from there', () => {
    expect(locateClient('127.2.3.4', inputs)).toEqual({
      location: { address: '127.2.3.4', by: 'prefix', prefix: '127.2.0.0/16', site: 'south' },
      position: MADRID,
    });
    expect(locateClient('::ffff:127.1.0.1', inputs).location.site).toBe('north');
  });

  it('is the site nearest to its position if the map does not cover it', () => {
    expect(locateClient('192.0.2.1', { ...inputs, geoip: paris }).location).toMatchObject({
      by: 'position',
      site: 'south',
    });
  });

  it('is the default site otherwise, if there is one', () => {
    expect(locateClient('192.0.2.1', { ...inputs, defaultSite: 'north' }).location).toMatchObject({
      by: 'default',
      site: 'north',
    });
    expect(locateClient('192.0.2.1', inputs).location).toMatchObject({ by: 'none', site: null });
    expect(locateClient('no address at all', { ...inputs, footprint: emptyFootprint }).location.by).toBe('none');
  });

  it('is measured along great circles, also across the date line', () => {
    expect(distanceKm(STOCKHOLM, MADRID)).toBeGreaterThan(2585);
    expect(distanceKm(STOCKHOLM, MADRID)).toBeLessThan(2605);
    expect(distanceKm({ lat: 0, lon: 179.9 }, { lat: 0, lon: -179.9 })).toBeCloseTo(22.24, 1);
  });
});
