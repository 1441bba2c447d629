// Turn-up checks: what must be true of a box before it may serve. Each measures something real and says what mends it.

import { randomBytes } from 'node:crypto';
import { open, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { request } from 'undici';
import { z } from 'zod';
import { isFault } from '../protocol/faults.ts';
import { formatBytes, formatRate } from '../protocol/units.ts';
import { call, reasonOf } from '../runtime/client.ts';
import { makeDirectory } from '../runtime/disk.ts';
import { SPACE_REMEDY, spaceProblem } from './directories.ts';
import { filesMax } from './system-limits.ts';
import { inFleet, ownToken, tlsFilesOf, type ApplianceConfig } from './config.ts';
import { dayOf, readMaterial, RENEWAL_MS, validityOf, invalidityReason, type Validity } from './tls/material.ts';

export const CLOCK_SKEW_MS_MAX = 2_000;
export const OPEN_FILES_MIN = 4_096;
/** Slower than one 4K stream to 20 players: no disk that should serve. */
export const DISK_BYTES_PER_S_MIN = 50e6;
const DISK_SAMPLE_BYTES = 32 * 2 ** 20;
const REACH_MS = 5_000;

export interface CheckResult {
  readonly name: string;
  readonly outcome: 'passed' | 'failed' | 'skipped';
  readonly detail: string;
  /** Null unless it failed. */
  readonly remedy: string | null;
}

type Outcome = Omit<CheckResult, 'name'>;

/** What is measured on the machine itself. */
export interface Probes {
  /** Bytes per second that reach the disk of a directory. */
  readonly writeRate: (directory: string) => Promise<number>;
}

interface Check {
  readonly name: string;
  readonly run: (config: ApplianceConfig, probes: Probes) => Promise<Outcome> | Outcome;
}

export const CHECKS: readonly Check[] = [
  { name: 'settings', run: checkSettings },
  { name: 'certificate', run: checkCertificate },
  { name: 'open files', run: checkOpenFiles },
  { name: 'disk space', run: checkDiskSpace },
  { name: 'disk rate', run: checkDiskRate },
  { name: 'clock', run: checkClock },
  { name: 'origin', run: checkOrigin },
  { name: 'steering', run: checkSteering },
  { name: 'fill', run: checkFill },
  { name: 'advertised URL', run: checkAdvertised },
];

/** One after another: the disk is measured while nothing else loads it. */
export async function runChecks(config: ApplianceConfig, probes: Probes = { writeRate }): Promise<CheckResult[]> {
  const results: CheckResult[] = [];
  for (const check of CHECKS) {
    try {
      results.push({ name: check.name, ...(await check.run(config, probes)) });
    } catch (error) {
      results.push({
        name: check.name,
        ...failed(reasonOf(error), 'See the message; if it names no cause, report a defect.'),
      });
    }
  }
  return results;
}

const passed = (detail: string): Outcome => ({ outcome: 'passed', detail, remedy: null });
const skipped = (detail: string): Outcome => ({ outcome: 'skipped', detail, remedy: null });
const failed = (detail: string, remedy: string): Outcome => ({ outcome: 'failed', detail, remedy });

function checkSettings(config: ApplianceConfig): Outcome {
  if (!inFleet(config)) return passed('stand-alone: no --steering');
  if (config.advertise.length === 0)
    return failed('no --advertise', 'Add --advertise URL, the base URL at which players reach this appliance.');
  if (config.fill === null)
    return failed('no --fill', 'Add --fill URL: the catalog says what this appliance may serve.');
  return passed(`${config.id} at site ${config.site}, ${config.timeZone}`);
}

/** What players would refuse, and what they will refuse soon. */
function checkCertificate(config: ApplianceConfig): Outcome {
  const files = tlsFilesOf(config);
  if (files === null) return passed('players are served without TLS: no --tls-cert');
  let validity: Validity;
  try {
    const hosts = config.advertise.map((url) => new URL(url).hostname);
    validity = validityOf(readMaterial(files), hosts);
  } catch (error) {
    return failed(reasonOf(error), 'Give the certificate chain and the private key that belongs to it, both PEM.');
  }
  const { uncovered, subject, untilMs } = validity;
  const flaw = invalidityReason(validity, Date.now());
  if (flaw !== null) return failed(`${files.tlsCert}: ${flaw}`, 'Renew it, then: kill -HUP PID of the appliance.');
  if (uncovered.length > 0)
    return failed(
      `${files.tlsCert} is for ${subject}, not for ${uncovered.join(', ')}`,
      'Get a certificate for the host names of --advertise, or advertise those that it is for.',
    );
  if (untilMs - Date.now() < RENEWAL_MS)
    return failed(`${files.tlsCert} expires on ${dayOf(untilMs)}`, 'Renew it, then: kill -HUP PID of the appliance.');
  return passed(`for ${subject}, until ${dayOf(untilMs)}`);
}

/** The hard limit of this process is what the service will have. */
function checkOpenFiles(): Outcome {
  const limit = filesMax();
  if (limit === null) return skipped('the system does not tell');
  if (limit < OPEN_FILES_MIN)
    return failed(
      `${limit} open files`,
      `Run: ulimit -n 65536, or set LimitNOFILE=65536 in the unit; at least ${OPEN_FILES_MIN} are needed.`,
    );
  return passed(`${limit} open files`);
}

function checkDiskSpace(config: ApplianceConfig): Outcome {
  for (const directory of config.store) {
    makeDirectory(directory);
    const problem = spaceProblem(config, directory);
    if (problem !== null) return failed(problem, SPACE_REMEDY);
  }
  return passed(`${config.store.length} volume(s) of ${formatBytes(config.storeBytes / config.store.length)}`);
}

async function checkDiskRate(config: ApplianceConfig, probes: Probes): Promise<Outcome> {
  const rates: string[] = [];
  for (const directory of config.store) {
    const bytesPerSecond = await probes.writeRate(directory);
    rates.push(formatRate(bytesPerSecond * 8));
    if (bytesPerSecond < DISK_BYTES_PER_S_MIN) {
      return failed(
        `${directory} writes ${formatRate(bytesPerSecond * 8)}`,
        `Use a disk that writes at least ${formatRate(DISK_BYTES_PER_S_MIN * 8)}; check it with: smartctl -a, iostat -x 1`,
      );
    }
  }
  return passed(`writes ${rates.join(', ')}`);
}

async function writeRate(directory: string): Promise<number> {
  const path = join(directory, `check-${randomBytes(4).toString('hex')}.tmp`);
  const sample = randomBytes(2 ** 20);
  const file = await open(path, 'wx', 0o600);
  try {
    const started = performance.now();
    for (let at = 0; at < DISK_SAMPLE_BYTES; at += sample.length) await file.write(sample, 0, sample.length, at);
    await file.datasync();
    return DISK_SAMPLE_BYTES / ((performance.now() - started) / 1000);
  } finally {
    await file.close();
    await unlink(path);
  }
}

/** Against the Date of whoever answers: steering where there is one, else the origin. */
async function checkClock(config: ApplianceConfig): Promise<Outcome> {
  const url = config.steering[0] === undefined ? config.origin : `${config.steering[0]}/healthz`;
  try {
    const sent = Date.now();
    const answer = await reach(url);
    const date = Date.parse(String(answer.headers['date'] ?? ''));
    if (Number.isNaN(date)) return skipped(`${url} sends no Date`);
    // Date has whole seconds: half a second either way is not the clock's fault.
    const skewMs = Math.max(0, Math.abs(date + 500 - (sent + Date.now()) / 2) - 500);
    if (skewMs > CLOCK_SKEW_MS_MAX)
      return failed(
        `${Math.round(skewMs / 1000)} s off from ${url}`,
        'Turn on time synchronisation: timedatectl set-ntp true',
      );
    return passed(`within ${CLOCK_SKEW_MS_MAX / 1000} s of ${url}`);
  } catch (error) {
    return skipped(`${url} did not answer (${reasonOf(error)})`);
  }
}

async function checkOrigin(config: ApplianceConfig): Promise<Outcome> {
  try {
    const { statusCode } = await reach(`${config.origin}/`);
    if (statusCode >= 500) return failed(`${config.origin} answers ${statusCode}`, 'Look at the log of the origin.');
    return passed(`${config.origin} answers`);
  } catch (error) {
    return failed(
      `${config.origin}: ${reasonOf(error)}`,
      `Check --origin and the route to it: curl -I ${config.origin}/`,
    );
  }
}

async function checkSteering(config: ApplianceConfig): Promise<Outcome> {
  if (!inFleet(config)) return skipped('stand-alone');
  for (const steering of config.steering) {
    try {
      const { statusCode } = await reach(`${steering}/healthz`);
      if (statusCode !== 200)
        return failed(`${steering} answers ${statusCode}`, 'Is this the address of steering? It must answer /healthz.');
    } catch (error) {
      return failed(
        `${steering}: ${reasonOf(error)}`,
        `Check --steering and the firewall for outgoing connections: curl ${steering}/healthz`,
      );
    }
  }
  return passed(`${config.steering.join(', ')} answers`);
}

/** With the appliance's own token for its own plan, so that a wrong one is found before the first night. */
async function checkFill(config: ApplianceConfig): Promise<Outcome> {
  if (config.fill === null) return skipped('stand-alone');
  const token = ownToken(config);
  if (token === null)
    return failed('no token', `Give --token; the operator prints one with: larder keys issue --appliance ${config.id}`);
  try {
    await call({ url: `${config.fill}/v1/plans/${config.id}`, token, answer: z.unknown(), timeoutMs: REACH_MS });
    return passed(`${config.fill} accepts the token`);
  } catch (error) {
    // Known, and nothing planned for it yet.
    if (isFault(error) && error.code === 'not_found') return passed(`${config.fill} accepts the token`);
    if (isFault(error) && (error.code === 'token_forged' || error.code === 'token_missing')) {
      return failed(
        `${config.fill}: ${error.message}`,
        `Ask the operator for a new token: larder keys issue --appliance ${config.id}`,
      );
    }
    return failed(
      `${config.fill}: ${reasonOf(error)}`,
      `Check --fill and the firewall for outgoing connections: curl ${config.fill}/healthz`,
    );
  }
}

/** Players must reach the appliance at what it advertises; needs it to be running. */
async function checkAdvertised(config: ApplianceConfig): Promise<Outcome> {
  if (config.advertise.length === 0) return skipped('nothing advertised');
  for (const url of config.advertise) {
    try {
      const answer = await reach(`${url}/`, 'OPTIONS');
      const found = answer.headers['larder-appliance'];
      if (found !== config.id)
        return failed(
          `${url} is answered by ${found === undefined ? 'something else' : `appliance ${String(found)}`}`,
          'Check that --advertise leads to --listen of this appliance.',
        );
    } catch (error) {
      return failed(
        `${url}: ${reasonOf(error)}`,
        'Start the appliance, then check DNS, firewall and port forwarding for incoming connections.',
      );
    }
  }
  return passed(config.advertise.join(', '));
}

async function reach(
  url: string,
  method: 'GET' | 'OPTIONS' = 'GET',
): Promise<{ statusCode: number; headers: Record<string, string | string[] | undefined> }> {
  const { statusCode, headers, body } = await request(url, {
    method,
    headersTimeout: REACH_MS,
    bodyTimeout: REACH_MS,
    signal: AbortSignal.timeout(REACH_MS),
  });
  await body.dump({ limit: 2 ** 20 });
  return { statusCode, headers };
}
