// HTTPS with real certificates and real clients: both versions of TLS and of HTTP, session resumption across workers, and a
// certificate that is renewed while responses are being sent.

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectHttp2, constants, type ClientHttp2Session } from 'node:http2';
import { connect as connectRaw, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type TLSSocket } from 'node:tls';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { needsTool } from '../../test/tools.ts';
import { systemClock } from '../../runtime/clock.ts';
import { packageRoot } from '../../runtime/paths.ts';
import { CHECKS } from '../turn-up-checks.ts';
import type { ApplianceConfig } from '../config.ts';
import { readMaterial, validityOf, invalidityReason, type TlsFiles } from '../tls/material.ts';
import { HttpConnection } from './http-client.ts';
import { metricValue } from './metrics.ts';
import { noise, RunningAppliance, ScriptedOrigin } from './rig.ts';

const run = promisify(execFile);
const openssl = needsTool('openssl');
const curl = needsTool('curl');
const FILM = noise(5 * 2 ** 20 + 77);
const SMALL = noise(500, 3);
const PLAIN = 'GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n';

let directory: string;
const file = (name: string): string => join(directory, name);

const EC = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'];

/** Makes a self-signed certificate for localhost, and its key. */
async function makePair(name: string, subject: string, days = 30, kind = EC): Promise<void> {
  const key = [...kind, '-nodes', '-keyout', file(`${name}.key`)];
  await run(openssl!, ['req', ...key, '-out', file('request'), '-subj', `/CN=${subject}`]);
  writeFileSync(file('names'), 'subjectAltName=DNS:localhost,IP:127.0.0.1');
  const sign = ['-req', '-in', file('request'), '-signkey', file(`${name}.key`), '-days', String(days)];
  await run(openssl!, ['x509', ...sign, '-extfile', file('names'), '-out', file(`${name}.pem`)]);
}

async function install(name: string): Promise<void> {
  copyFileSync(file(`${name}.pem`), file('live.pem'));
  copyFileSync(file(`${name}.key`), file('live.key'));
}

describe.skipIf(openssl === null || curl === null)('https', () => {
  let origin: ScriptedOrigin;
  let appliance: RunningAppliance;
  /** A connection that never begins a handshake. */
  let idle: Socket;
  let idleClosed: Promise<unknown>;

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'larder-tls-'));
    await makePair('first', 'first');
    await makePair('second', 'second');
    await makePair('expired', 'expired', -1);
    await makePair('late', 'late', 10);
    await makePair('small', 'small', 30, ['-newkey', 'rsa:512']);
    await install('first');
    origin = await ScriptedOrigin.start();
    const headers = { 'cache-control': 'max-age=3600' };
    origin.put('/film', FILM, { headers });
    origin.put('/small', SMALL, { headers });
    appliance = await start();
    idle = connectRaw({ port: appliance.port, host: '127.0.0.1' }).on('error', () => undefined);
    idleClosed = once(idle, 'close');
    for (let round = 0; round < 4; round += 1) for (const path of ['/film', '/small']) await curlFetch([path]);
  });

  afterAll(async () => {
    await appliance?.stop();
    await origin?.stop();
    if (directory !== undefined) rmSync(directory, { recursive: true, force: true });
  });

  const start = (...flags: readonly string[]): Promise<RunningAppliance> =>
    RunningAppliance.start({
      origin: origin.url,
      flags: ['--tls-cert', file('live.pem'), '--tls-key', file('live.key'), ...flags],
    });

  /** Runs curl; the first argument is the path, flags follow. */
  async function curlFetch(
    [path, ...flags]: readonly string[],
    port = appliance.port,
  ): Promise<{ readonly body: Buffer; readonly status: string; readonly version: string }> {
    const out = file(`out-${Math.random()}`);
    const write = ['--silent', '--output', out, '--write-out', '%{http_code} %{http_version}'];
    const trust = ['--cacert', file('live.pem'), ...flags, `https://localhost:${port}${path}`];
    const { stdout } = await run(curl!, [...write, '--resolve', `localhost:${port}:127.0.0.1`, ...trust]);
    const [status, version] = stdout.split(' ') as [string, string];
    const body = existsSync(out) ? readFileSync(out) : Buffer.alloc(0);
    rmSync(out, { force: true });
    return { body, status, version };
  }

  const metric = (series: string): Promise<number> => metricValue(appliance, series);

  /** A connection that stays open; `session` resumes another. */
  async function open(port: number, session?: Buffer): Promise<TLSSocket> {
    const socket = connect({ port, host: '127.0.0.1', servername: 'localhost', rejectUnauthorized: false, session });
    socket.on('error', () => undefined);
    await once(socket, 'secureConnect');
    return socket;
  }

  async function requestSmall(socket: TLSSocket): Promise<string> {
    let text = '';
    socket.write(PLAIN);
    while (!text.includes(SMALL.toString('latin1')))
      text += ((await once(socket, 'data')) as [Buffer])[0].toString('latin1');
    return text;
  }

  test.each([[['--tlsv1.3']], [['--tls-max', '1.2']], [['--http1.1']], [['--http2']]])(
    'curl %j gets the right bytes, whole and in ranges',
    async (flags) => {
      expect((await curlFetch(['/film', ...flags])).body.equals(FILM)).toBe(true);
      const part = await curlFetch(['/film', ...flags, '--range', '1048570-2097160']);
      expect([part.status, part.body.equals(FILM.subarray(1_048_570, 2_097_161))]).toEqual(['206', true]);
      // HTTP/2 is off unless it is set.
      expect(part.version).toBe('1.1');
      expect((await curlFetch(['/nothing', ...flags])).status).toBe('404');
    },
  );

  test('TLS before 1.2 is refused, and so is plain HTTP', async () => {
    await expect(
      curlFetch(['/small', '--tlsv1.0', '--tls-max', '1.1', '--ciphers', 'DEFAULT@SECLEVEL=0']),
    ).rejects.toThrow();
    const plain = (await HttpConnection.open(appliance.port)).send(PLAIN);
    await plain.closed();
    expect(plain.unread.toString('latin1')).not.toContain('HTTP/1.1 200');
    expect((await curlFetch(['/small'])).status).toBe('200');
  });

  test('TLS connections take the fast path', async () => {
    const before = await metric('larder_fast_path_total');
    const socket = await open(appliance.port);
    for (let count = 0; count < 4; count += 1) await requestSmall(socket);
    socket.destroy();
    await appliance.until(async () => (await metric('larder_fast_path_total')) >= before + 3);
  });

  test('a client that closes its half after the request gets the response', async () => {
    const socket = await open(appliance.port);
    await requestSmall(socket);
    socket.end(PLAIN);
    let text = '';
    for await (const chunk of socket) text += (chunk as Buffer).toString('latin1');
    expect(text.endsWith(SMALL.toString('latin1'))).toBe(true);
  });

  /** Connections are handed to the workers in turn, so every second one reaches the other worker. */
  async function resumptions(sessionFile: string, count: number): Promise<string[]> {
    const lines: string[] = [];
    for (let at = 0; at < count; at += 1) {
      const to = ['s_client', '-connect', `127.0.0.1:${appliance.port}`, '-servername', 'localhost', '-ign_eof'];
      const client = spawn(openssl!, [...to, existsSync(sessionFile) ? '-sess_in' : '-sess_out', sessionFile], {
        stdio: ['pipe', 'pipe', 'ignore'],
      });
      let text = '';
      client.stdout.setEncoding('latin1').on('data', (chunk: string) => (text += chunk));
      client.stdin.write('GET /small HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n');
      await once(client, 'close');
      lines.push(/^(New|Reused), TLSv1\.\d/m.exec(text)?.[0] ?? text.slice(0, 500));
    }
    return lines;
  }

  test('a session resumes with every worker, also after a reload of the certificate', async () => {
    const lines = await resumptions(file('session'), 7);
    expect(lines).toEqual(['New, TLSv1.3', ...Array<string>(6).fill('Reused, TLSv1.3')]);
    const before = appliance.log.length;
    process.kill(appliance.process.pid!, 'SIGHUP');
    await appliance.until(() => appliance.log.slice(before).includes('certificate reloaded'));
    expect(new Set(await resumptions(file('session'), 4))).toEqual(new Set(['Reused, TLSv1.3']));
    await appliance.until(async () => (await metric('larder_tls_handshakes_total{outcome="resumed"}')) >= 10);
  });

  const subjectAt = async (): Promise<string> => {
    const socket = await open(appliance.port);
    const { CN } = socket.getPeerCertificate().subject;
    socket.destroy();
    return String(CN);
  };
  const reload = async (message: string): Promise<void> => {
    const before = appliance.log.length;
    process.kill(appliance.process.pid!, 'SIGHUP');
    await appliance.until(() => appliance.log.slice(before).includes(message));
  };

  test('SIGHUP loads a renewed certificate, and open connections go on', async () => {
    const old = await open(appliance.port);
    await requestSmall(old);
    await install('second');
    await reload('certificate reloaded');
    await appliance.until(async () => (await subjectAt()) === 'second' && (await subjectAt()) === 'second');
    await requestSmall(old);
    old.destroy();
    expect((await curlFetch(['/film'])).body.equals(FILM)).toBe(true);
  });

  test.each([
    ['a key of another pair', 'does not belong', async () => copyFileSync(file('first.key'), file('live.key'))],
    ['an expired certificate', 'expired on', () => install('expired')],
    ['a truncated file', 'is no certificate', async () => writeFileSync(file('live.pem'), 'half')],
    ['a missing file', 'cannot be read', async () => rmSync(file('live.pem'))],
  ])('a certificate that cannot be used is ignored, and the old one stays in force: %s', async (_, problem, spoil) => {
    await install('second');
    await reload('certificate reloaded');
    await spoil();
    await reload(problem);
    expect(await subjectAt()).toBe('second');
    // A worker that starts now uses it as well.
    const { workers } = await appliance.pids();
    for (const pid of workers) process.kill(pid, 'SIGKILL');
    await appliance.until(async () => (await subjectAt().catch(() => '')) === 'second');
    await install('second');
  });

  test('a drain closes idle connections and lets running responses end', async () => {
    const leaving = await start('--drain-timeout', '20s');
    const [idle, busy] = [await open(leaving.port), await open(leaving.port)];
    await requestSmall(idle);
    const chunks: Buffer[] = [];
    busy.on('data', (chunk: Buffer) => chunks.push(chunk));
    busy.write('GET /film HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await once(busy, 'data');
    const exited = once(leaving.process, 'exit');
    const closed = once(idle, 'close');
    process.kill(leaving.process.pid!, 'SIGTERM');
    await closed;
    const [code] = (await exited) as [number];
    expect(code).toBe(0);
    expect(Buffer.concat(chunks).subarray(-FILM.length).equals(FILM)).toBe(true);
    await leaving.stop();
  });

  describe('with --http2', () => {
    let modern: RunningAppliance;
    beforeAll(async () => {
      modern = await start('--http2');
    });
    afterAll(() => modern?.stop());

    test.each([
      ['--http2', '2'],
      ['--http1.1', '1.1'],
    ])('curl %s gets the same bytes', async (flag, version) => {
      const get = (...what: string[]): ReturnType<typeof curlFetch> => curlFetch([...what, flag], modern.port);
      for (let count = 0; count < 3; count += 1) expect((await get('/film')).body.equals(FILM)).toBe(true);
      const part = await get('/film', '--range', '1048570-2097160');
      expect([part.status, part.version]).toEqual(['206', version]);
      expect(part.body.equals(FILM.subarray(1_048_570, 2_097_161))).toBe(true);
      expect((await get('/film', '--range', `${FILM.length}-`)).status).toBe('416');
      expect((await get('/film', '--header', 'If-None-Match: *')).status).toBe('304');
      expect((await get('/film', '--head')).status).toBe('200');
      expect((await get('/nothing')).status).toBe('404');
      expect((await get('/small', '--request', 'DELETE')).status).toBe('405');
    });

    async function session(port: number): Promise<ClientHttp2Session> {
      const made = connectHttp2(`https://localhost:${port}`, {
        rejectUnauthorized: false,
        lookup: (_host, _options, done) => done(null, [{ address: '127.0.0.1', family: 4 }], 4),
      });
      made.on('error', () => undefined);
      await once(made, 'connect');
      return made;
    }

    test('streams count toward --connections-max: one more gets a 503 with Retry-After', async () => {
      const small = await start('--http2', '--connections-max', '4');
      const client = await session(small.port);
      const stalled = [1, 2].map(() => client.request({ ':path': '/film' }));
      await Promise.all(stalled.map((stream) => once(stream, 'response')));
      const [refused] = (await once(client.request({ ':path': '/small' }), 'response')) as [Record<string, unknown>];
      expect([refused[':status'], refused['retry-after']]).toEqual([503, '1']);
      for (const stream of stalled) stream.close();
      await small.until(async () => {
        const [answered] = (await once(client.request({ ':path': '/small' }), 'response')) as [Record<string, unknown>];
        return answered[':status'] === 200;
      });
      client.destroy();
      await small.stop();
    });

    test.each([
      ['is cached', { 'content-length': '5000', etag: '"v1"', 'cache-control': 'max-age=60' }],
      ['is passed on with a length', { 'content-length': '5000', 'cache-control': 'no-store' }],
      ['is passed on without a length', { 'cache-control': 'no-store' }],
    ])('a response that %s and ends short ends its stream with INTERNAL_ERROR (RFC 9113 8.1)', async (_, headers) => {
      origin.intercept = (request, response) => {
        if (!request.url!.startsWith('/short')) return false;
        response.writeHead(200, headers).write(noise(1_000), () => request.socket.destroy());
        return true;
      };
      const client = await session(modern.port);
      const stream = client.request({ ':path': `/short-${Math.random()}` });
      let bytes = 0;
      stream.on('data', (chunk: Buffer) => (bytes += chunk.length)).on('error', () => undefined);
      await new Promise((resolve) => stream.on('close', resolve));
      origin.intercept = () => false;
      client.destroy();
      expect(bytes).toBeLessThan(5_000);
      expect(stream.rstCode).toBe(constants.NGHTTP2_INTERNAL_ERROR);
    });

    test.each(['--http2', '--http1.1'])(
      'an upload through a reverse proxy reaches the origin: curl %s',
      async (flag) => {
        const proxy = await start('--http2', '--reverse-proxy');
        const bodies: Buffer[] = [];
        origin.intercept = (request, response) => {
          if (request.method !== 'POST') return false;
          void (async () => {
            const chunks: Buffer[] = [];
            for await (const chunk of request) chunks.push(chunk as Buffer);
            bodies.push(Buffer.concat(chunks));
            response.writeHead(201).end();
          })();
          return true;
        };
        writeFileSync(file('upload'), FILM);
        const post = ['/upload', flag, '--data-binary', `@${file('upload')}`];
        for (const framing of [[], ['--header', 'Transfer-Encoding: chunked']])
          expect((await curlFetch([...post, ...framing], proxy.port)).status).toBe('201');
        expect(bodies.map((body) => body.equals(FILM))).toEqual([true, true]);
        expect(origin.requests.at(-1)!.headers).toMatchObject({
          'x-forwarded-proto': 'https',
          'x-forwarded-host': `localhost:${proxy.port}`,
          'x-forwarded-for': '127.0.0.1',
        });
        origin.intercept = () => false;
        await proxy.stop();
      },
    );

    test('30 streams of one connection are answered, and a drain lets a running stream end', async () => {
      const leaving = await start('--http2');
      const client = await session(leaving.port);
      const readFilm = async (stream = client.request({ ':path': '/film' })): Promise<boolean> => {
        const chunks: Buffer[] = [];
        for await (const chunk of stream) chunks.push(chunk as Buffer);
        return Buffer.concat(chunks).equals(FILM);
      };
      expect(await Promise.all(Array.from({ length: 30 }, () => readFilm()))).toEqual(Array(30).fill(true));
      const running = client.request({ ':path': '/film' });
      await once(running, 'response');
      const last = readFilm(running);
      const gone = once(client, 'close');
      process.kill(leaving.process.pid!, 'SIGTERM');
      expect(await last).toBe(true);
      await gone;
      await leaving.stop();
    });
  });

  test.each([
    ['a certificate without its key', ['--tls-cert', 'first.pem'], '--tls-key is required'],
    ['a key without its certificate', ['--tls-key', 'first.key'], '--tls-cert is required'],
    ['a key of another pair', ['--tls-cert', 'first.pem', '--tls-key', 'second.key'], 'does not belong'],
    ['a missing file', ['--tls-cert', 'none.pem', '--tls-key', 'first.key'], 'none.pem cannot be read (ENOENT)'],
    [
      'a key in place of the certificate',
      ['--tls-cert', 'first.key', '--tls-key', 'first.key'],
      'first.key is no certificate',
    ],
    ['a key too small to be safe', ['--tls-cert', 'small.pem', '--tls-key', 'small.key'], 'cannot be served with'],
    ['HTTP/2 without TLS', ['--http2'], '--http2 needs --tls-cert'],
    [
      'an advertised URL that is not https',
      ['--tls-cert', 'first.pem', '--tls-key', 'first.key', '--advertise', 'http://x'],
      '--advertise http://x must begin with https:',
    ],
  ])('the appliance does not start with %s', async (_, flags, problem) => {
    const what = ['appliance', 'run', '--origin', 'http://127.0.0.1:1', '--listen', '127.0.0.1:0', ...flags];
    const failure = await run(process.execPath, [join(packageRoot, 'dist/larder.js'), ...what], {
      cwd: directory,
    }).then(
      () => ({ code: 0, stderr: '' }),
      (error: { code: number; stderr: string }) => error,
    );
    expect(failure.stderr).toContain(problem);
    expect(failure.code).toBe(2);
  });

  const pair = (name: string): TlsFiles => ({ tlsCert: file(`${name}.pem`), tlsKey: file(`${name}.key`) });

  test.each([
    ['passed', 'until 20', () => ({ ...pair('first'), advertise: ['https://localhost:8443', 'https://127.0.0.1'] })],
    ['failed', 'not for cdn.example', () => ({ ...pair('first'), advertise: ['https://cdn.example'] })],
    ['failed', 'expired on', () => ({ ...pair('expired'), advertise: [] })],
    ['failed', 'expires on', () => ({ ...pair('late'), advertise: [] })],
    ['failed', 'does not belong', () => ({ ...pair('first'), tlsKey: file('second.key'), advertise: [] })],
    ['passed', 'no --tls-cert', () => ({ tlsCert: null, tlsKey: null, advertise: [] })],
  ])('the turn-up check of the certificate has %s: %s', async (outcome, detail, settings) => {
    const config = settings() as unknown as ApplianceConfig;
    const result = await CHECKS.find(({ name }) => name === 'certificate')!.run(config, { writeRate: async () => 0 });
    expect([result.outcome, result.detail]).toEqual([outcome, expect.stringContaining(detail)]);
  });

  test('a connection that does not begin a handshake is closed', async () => {
    idle.resume();
    await idleClosed;
  });

  test('validity and names of a certificate are parsed', () => {
    const hosts = ['localhost', '127.0.0.1', 'other.example', '10.0.0.1'];
    const validity = validityOf(readMaterial(pair('first')), hosts);
    expect(validity.uncovered).toEqual(['other.example', '10.0.0.1']);
    expect(invalidityReason(validity, systemClock.now())).toBe(null);
    expect(invalidityReason(validity, systemClock.now() + 31 * 86_400_000)).toMatch(/expired on/);
    expect(invalidityReason(validity, systemClock.now() - 86_400_000)).toMatch(/valid from/);
    expect(invalidityReason(validityOf(readMaterial(pair('expired')), []), systemClock.now())).toMatch(/expired on/);
  });
});
