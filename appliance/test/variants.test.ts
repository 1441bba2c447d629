// Vary (RFC 9111 4.1): each variant is stored under the request fields that selected it, and is given to no other request.

import type { IncomingMessage, ServerResponse } from 'node:http';
import { expect, test } from 'vitest';
import {
  aged,
  cacheStatus,
  FRESH,
  Resource,
  respond,
  settled,
  standalone,
  startAppliances,
  V1,
} from './caching-rig.ts';
import { until } from './waiting.ts';

startAppliances();

const accept = (language: string): string[] => [`Accept-Language: ${language}`];

/** A resource with one version and one body per language. */
const byLanguage =
  (vary = 'Accept-Language') =>
  (request: IncomingMessage, response: ServerResponse): void => {
    const language = request.headers['accept-language'] ?? 'none';
    const headers = { etag: `"${language}"`, vary, 'cache-control': 'max-age=600' };
    respond(request, response, { headers, body: `in ${language}` });
  };

test('each variant is stored, found again, and given to no other request', async () => {
  const resource = new Resource(byLanguage());
  for (const language of ['da', 'de', 'da', 'de', 'de,en'])
    expect((await resource.get(accept(language))).body.toString()).toBe(`in ${language}`);
  expect((await resource.get()).body.toString()).toBe('in none');
  expect(resource.requests).toHaveLength(4);
  await until(async () => cacheStatus(await resource.get(accept('de'))).startsWith('larder; hit'));
  await until(async () => cacheStatus(await resource.get(accept('de,  en'))).startsWith('larder; hit'));
  expect(cacheStatus(await resource.get(accept('fr')))).toMatch(/^larder; fwd=vary-miss; fwd-status=206; stored$/);
  expect((await resource.get([...accept('da'), 'Range: bytes=3-4'])).body.toString()).toBe('da');
  expect(resource.requests).toHaveLength(5);
});

test('concurrent requests for different variants get the right one each', async () => {
  const resource = new Resource(byLanguage());
  const languages = Array.from({ length: 30 }, (_, at) => ['da', 'de', 'en'][at % 3]!);
  const answers = await Promise.all(languages.map((language) => resource.get(accept(language))));
  expect(answers.map(({ body }) => body.toString())).toEqual(languages.map((language) => `in ${language}`));
  expect(resource.requests.length).toBeLessThanOrEqual(4);
});

test('variants are found after a restart', async () => {
  const resource = new Resource(byLanguage());
  for (const language of ['da', 'de']) await resource.fetchAndStore(accept(language));
  await standalone.killAll();
  await standalone.start();
  for (const language of ['da', 'de'])
    expect((await resource.get(accept(language))).body.toString()).toBe(`in ${language}`);
  expect(resource.requests).toHaveLength(2);
});

test('Accept-Encoding makes no variants: the origin is only ever asked for identity', async () => {
  const headers = { ...V1, vary: 'Accept-Encoding', 'cache-control': 'max-age=60' };
  const resource = await new Resource({ headers }).fetchAndStore(['Accept-Encoding: gzip']);
  expect(cacheStatus(await resource.get(['Accept-Encoding: br']))).toMatch(/^larder; hit/);
  expect(resource.requests[0]!.headers['accept-encoding']).toBe('identity');
});

test('a Vary of 121 field names still separates the variants', async () => {
  // The list did not fit the stored fields once, and was dropped.
  const names = ['Accept-Language', ...Array.from({ length: 120 }, (_, at) => `X-Some-Field-${at}`)];
  const resource = new Resource(byLanguage(names.join(', ')));
  await resource.get(accept('da'));
  await settled(standalone);
  expect((await resource.get(accept('de'))).body.toString()).toBe('in de');
});

test('once a 304 adds Vary, the stored response is given to matching requests only', async () => {
  const resource = await new Resource({ headers: aged('max-age=10', 20), body: 'in da' }).fetchAndStore(accept('da'));
  resource.respondWith((request, response) => {
    const danish = request.headers['accept-language'] === 'da';
    const headers = { ...FRESH, etag: danish ? '"v1"' : '"de"', vary: 'Accept-Language' };
    respond(request, response, { headers, body: danish ? 'in da' : 'in de' });
  });
  const validated = await resource.get(accept('da'));
  expect(validated.fields).toContainEqual(['vary', 'Accept-Language']);
  expect((await resource.get(accept('de'))).body.toString()).toBe('in de');
});

test('a Vary that names a property of Object.prototype is a field name like any other', async () => {
  const resource = new Resource({ headers: { ...FRESH, vary: 'Constructor' } });
  expect((await resource.get()).status).toBe(200);
});
