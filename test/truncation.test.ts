// A response that ends short, as a browser sees it: Chromium's fetch must fail, over HTTP/2 and over HTTP/1.1, whether or not the
// response has a length.

import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { chromium, type BrowserContext } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { noise, RunningAppliance, ScriptedOrigin } from '../appliance/test/rig.ts';
import { needsTool } from './tools.ts';

const BYTES = 5_000;
const SENT = 1_000;
const browserPath = needsTool('chromium');
const openssl = needsTool('openssl');

describe.skipIf(browserPath === null || openssl === null)('a response that ends short', () => {
  let directory: string;
  let origin: ScriptedOrigin;
  let context: BrowserContext;

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'larder-truncation-'));
    const name = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'];
    const pair = ['-keyout', join(directory, 'key.pem'), '-out', join(directory, 'cert.pem')];
    const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '30'];
    await promisify(execFile)(openssl!, ['req', '-x509', ...kind, ...pair, ...name]);
    origin = await ScriptedOrigin.start();
    origin.put('/page', Buffer.from('<!doctype html>'), {
      headers: { 'content-type': 'text/html', 'cache-control': 'max-age=60' },
    });
    origin.intercept = (request, response) => {
      const kindOf = /^\/(with|without)-length/.exec(request.url!)?.[1];
      if (kindOf === undefined) return false;
      const length = kindOf === 'with' ? { 'content-length': String(BYTES) } : {};
      response.writeHead(200, { ...length, 'cache-control': 'no-store' });
      response.write(noise(SENT), () => request.socket.destroy());
      return true;
    };
    context = await chromium.launchPersistentContext(join(directory, 'profile'), {
      executablePath: browserPath!,
      headless: true,
      ignoreHTTPSErrors: true,
      args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'],
    });
  }, 60_000);

  afterAll(async () => {
    await context?.close();
    await origin?.stop();
    if (directory !== undefined) rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
  });

  test.each([
    ['h2', ['--http2']],
    ['http/1.1', []],
  ])('makes fetch fail over %s', async (protocol, flags) => {
    const certificate = ['--tls-cert', join(directory, 'cert.pem'), '--tls-key', join(directory, 'key.pem')];
    const appliance = await RunningAppliance.start({ origin: origin.url, flags: [...certificate, ...flags] });
    const page = await context.newPage();
    try {
      await page.goto(`https://localhost:${appliance.port}/page`);
      const spoken = await page.evaluate(
        () =>
          (performance.getEntriesByType('navigation' as 'resource')[0] as unknown as { nextHopProtocol: string })
            .nextHopProtocol,
      );
      expect(spoken).toBe(protocol);
      for (const path of ['/with-length', '/without-length']) {
        const outcome = await page.evaluate(async (url) => {
          try {
            const body = await (await fetch(url)).arrayBuffer();
            return `${body.byteLength} bytes`;
          } catch (error) {
            return (error as Error).name;
          }
        }, path);
        expect([path, outcome]).toEqual([path, 'TypeError']);
      }
    } finally {
      await page.close();
      await appliance.stop();
    }
  });
});
