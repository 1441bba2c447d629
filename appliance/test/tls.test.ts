// HTTPS as players meet it: real certificates, real clients, both versions of TLS and of HTTP, sessions that resume with
// whichever worker comes next, and a certificate that is renewed while films go on.

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectHttp2, type ClientHttp2Session } from 'node:http2';
import { connect as connectRaw, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type TLSSocket } from 'node:tls';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { needsTool } from '../../test/tools.ts';
import { packageRoot } from '../../runtime/paths.ts';
import { CHECKS } from '../turn-up-checks.ts';
import type { ApplianceConfig } from '../config.ts';
import { readMaterial, validityOf, invalidityReason, type TlsFiles } from '../tls/material.ts';
import { noise, raw, RunningAppliance, ScriptedOrigin } from './rig.ts';

const run = promisify(execFile);
const openssl = needsTool('openssl');
const curl = needsTool('curl');
const FILM = noise(5 * 2 ** 20 + 77);
const SMALL = noise(500, 3);
const PLAIN = 'GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n';

let directory: string;
const file = (name: string): string => join(directory, name);

const EC = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'];

/** A certificate for localhost that signs itself, and its key. */
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
  /** Connects at the start and says nothing. */
  let silent: Socket;
  let silentEnd: Promise<unknown>;

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
    silent = connectRaw({ port: appliance.port, host: '127.0.0.1' }).on('error', () => undefined);
    silentEnd = once(silent, 'close');
    for (let turn = 0; turn < 4; turn += 1) for (const path of ['/film', '/small']) await fetched([path]);
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

  /** By curl: body, status, version of HTTP. The first element is the path, then come flags. */
  async function fetched(
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

  const metric = async (name: string): Promise<number> => {
    const headers = { authorization: `Bearer ${appliance.token}` };
    const text = await (await fetch(`${appliance.admin}/metrics`, { headers })).text();
    const line = text.split('\n').find((each) => each.startsWith(`${name} `));
    return Number(line?.split(' ').at(-1) ?? 0);
  };

  /** A connection that stays open; `session` resumes another. */
  async function open(port: number, session?: Buffer): Promise<TLSSocket> {
    const socket = connect({ port, host: '127.0.0.1', servername: 'localhost', rejectUnauthorized: false, session });
    socket.on('error', () => undefined);
    await once(socket, 'secureConnect');
    return socket;
  }

  async function answer(socket: TLSSocket): Promise<string> {
    let text = '';
    socket.write(PLAIN);
    while (!text.includes(SMALL.toString('latin1')))
      text += ((await once(socket, 'data')) as [Buffer])[0].toString('latin1');
    return text;
  }

  test.each([[['--tlsv1.3']], [['--tls-max', '1.2']], [['--http1.1']], [['--http2']]])(
    'brings the bytes, whole and in ranges: curl %j',
    async (flags) => {
      expect((await fetched(['/film', ...flags])).body.equals(FILM)).toBe(true);
      const part = await fetched(['/film', ...flags, '--range', '1048570-2097160']);
      expect([part.status, part.body.equals(FILM.subarray(1_048_570, 2_097_161))]).toEqual(['206', true]);
      // Not offered unless asked for.
      expect(part.version).toBe('1.1');
      expect((await fetched(['/nothing', ...flags])).status).toBe('404');
    },
  );

  test('versions before 1.2 are refused, and so is what is no TLS at all', async () => {
    await expect(
      fetched(['/small', '--tlsv1.0', '--tls-max', '1.1', '--ciphers', 'DEFAULT@SECLEVEL=0']),
    ).rejects.toThrow();
    expect((await raw(appliance.port, PLAIN)).toString('latin1')).not.toContain('HTTP/1.1 200');
    expect((await fetched(['/small'])).status).toBe('200');
  });

  test('goes the short way too', async () => {
    const before = await metric('larder_fast_path_total');
    const socket = await open(appliance.port);
    for (let turn = 0; turn < 4; turn += 1) await answer(socket);
    socket.destroy();
    await appliance.until(async () => (await metric('larder_fast_path_total')) >= before + 3);
  });

  test('who asks, and says that this was all, is answered', async () => {
    const socket = await open(appliance.port);
    await answer(socket);
    socket.end(PLAIN);
    let text = '';
    for await (const chunk of socket) text += (chunk as Buffer).toString('latin1');
    expect(text.endsWith(SMALL.toString('latin1'))).toBe(true);
  });

  /** Connections one after another go to workers by turns, so that every second one meets another worker. */
  async function resumptions(sessionFile: string, count: number): Promise<string[]> {
    const lines: string[] = [];
    for (let turn = 0; turn < count; turn += 1) {
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

  test('a session resumes with every worker, and after a reload', async () => {
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
  const reload = async (word: string): Promise<void> => {
    const before = appliance.log.length;
    process.kill(appliance.process.pid!, 'SIGHUP');
    await appliance.until(() => appliance.log.slice(before).includes(word));
  };

  test('a renewed certificate is served from SIGHUP on, and running connections go on', async () => {
    const old = await open(appliance.port);
    await answer(old);
    await install('second');
    await reload('certificate reloaded');
    await appliance.until(async () => (await subjectAt()) === 'second' && (await subjectAt()) === 'second');
    await answer(old);
    old.destroy();
    expect((await fetched(['/film'])).body.equals(FILM)).toBe(true);
  });

  test.each([
    ['a key of another pair', 'does not belong', async () => copyFileSync(file('first.key'), file('live.key'))],
    ['an expired one', 'expired on', () => install('expired')],
    ['half a file', 'is no certificate', async () => writeFileSync(file('live.pem'), 'half')],
    ['no file', 'cannot be read', async () => rmSync(file('live.pem'))],
  ])('what cannot be served with keeps the old certificate: %s', async (_, problem, spoil) => {
    await install('second');
    await reload('certificate reloaded');
    await spoil();
    await reload(problem);
    expect(await subjectAt()).toBe('second');
    // One that starts now serves with it too.
    const { workers } = await appliance.pids();
    for (const pid of workers) process.kill(pid, 'SIGKILL');
    await appliance.until(async () => (await subjectAt().catch(() => '')) === 'second');
    await install('second');
  });

  test('a drain ends idle connections and lets running answers end', async () => {
    const leaving = await start('--drain-timeout', '20s');
    const [idle, busy] = [await open(leaving.port), await open(leaving.port)];
    await answer(idle);
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
      const get = (...what: string[]): ReturnType<typeof fetched> => fetched([...what, flag], modern.port);
      for (let turn = 0; turn < 3; turn += 1) expect((await get('/film')).body.equals(FILM)).toBe(true);
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

    test('streams count as connections do: beyond the most there may be, a stream is told so', async () => {
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

    test.each(['--http2', '--http1.1'])('uploads go to the origin behind it: curl %s', async (flag) => {
      const before = await start('--http2', '--reverse-proxy');
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
      for (const length of [[], ['--header', 'Transfer-Encoding: chunked']])
        expect((await fetched([...post, ...length], before.port)).status).toBe('201');
      expect(bodies.map((body) => body.equals(FILM))).toEqual([true, true]);
      expect(origin.requests.at(-1)!.headers).toMatchObject({
        'x-forwarded-proto': 'https',
        'x-forwarded-host': `localhost:${before.port}`,
        'x-forwarded-for': '127.0.0.1',
      });
      origin.intercept = () => false;
      await before.stop();
    });

    test('many streams of one connection are answered, and a drain lets them end', async () => {
      const leaving = await start('--http2');
      const client = await session(leaving.port);
      const ask = async (stream = client.request({ ':path': '/film' })): Promise<boolean> => {
        const chunks: Buffer[] = [];
        for await (const chunk of stream) chunks.push(chunk as Buffer);
        return Buffer.concat(chunks).equals(FILM);
      };
      expect(await Promise.all(Array.from({ length: 30 }, () => sendRequest()))).toEqual(Array(30).fill(true));
      const running = client.request({ ':path': '/film' });
      await once(running, 'response');
      const last = sendRequest(running);
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
    [
      'a file that is not there',
      ['--tls-cert', 'none.pem', '--tls-key', 'first.key'],
      'none.pem cannot be read (ENOENT)',
    ],
    ['a key for a certificate', ['--tls-cert', 'first.key', '--tls-key', 'first.key'], 'first.key is no certificate'],
    ['a key too small to be safe', ['--tls-cert', 'small.pem', '--tls-key', 'small.key'], 'cannot be served with'],
    ['HTTP/2 without TLS', ['--http2'], '--http2 needs --tls-cert'],
    [
      'a plain URL to advertise',
      ['--tls-cert', 'first.pem', '--tls-key', 'first.key', '--advertise', 'http://x'],
      '--advertise http://x must begin with https:',
    ],
  ])('does not start with %s', async (_, flags, problem) => {
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
    ['passed', () => ({ ...pair('first'), advertise: ['https://localhost:8443', 'https://127.0.0.1'] }), 'until 20'],
    ['failed', () => ({ ...pair('first'), advertise: ['https://cdn.example'] }), 'not for cdn.example'],
    ['failed', () => ({ ...pair('expired'), advertise: [] }), 'expired on'],
    ['failed', () => ({ ...pair('late'), advertise: [] }), 'expires on'],
    ['failed', () => ({ ...pair('first'), tlsKey: file('second.key'), advertise: [] }), 'does not belong'],
    ['passed', () => ({ tlsCert: null, tlsKey: null, advertise: [] }), 'no --tls-cert'],
  ])('the turn-up check of a certificate has %s', async (outcome, settings, word) => {
    const config = settings() as unknown as ApplianceConfig;
    const result = await CHECKS.find(({ name }) => name === 'certificate')!.run(config, { writeRate: async () => 0 });
    expect([result.outcome, result.detail]).toEqual([outcome, expect.stringContaining(word)]);
  });

  test('who does not begin a handshake is let go', async () => {
    silent.resume();
    await silentEnd;
  });

  test('the dates and names of a certificate are read', () => {
    const hosts = ['localhost', '127.0.0.1', 'other.example', '10.0.0.1'];
    const validity = validityOf(readMaterial(pair('first')), hosts);
    expect(validity.uncovered).toEqual(['other.example', '10.0.0.1']);
    expect(invalidityReason(validity, Date.now())).toBe(null);
    expect(invalidityReason(validity, Date.now() + 31 * 86_400_000)).toMatch(/expired on/);
    expect(invalidityReason(validity, Date.now() - 86_400_000)).toMatch(/valid from/);
    expect(invalidityReason(validityOf(readMaterial(pair('expired')), []), Date.now())).toMatch(/expired on/);
  });
});
