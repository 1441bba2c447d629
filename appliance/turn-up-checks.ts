// Turn-up checks: what must hold on a machine before its appliance may serve. Each check measures the real thing, and a failed one
// names its remedy.

import { randomBytes } from 'node:crypto';
import { open, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { request } from 'undici';
import { z } from 'zod';
import { isFault } from '../protocol/faults.ts';
import { formatBytes, formatRate } from '../protocol/units.ts';
import { systemClock } from '../runtime/clock.ts';
import { call, reasonOf } from '../runtime/client.ts';
import { makeDirectory } from '../runtime/disk.ts';
import { SPACE_REMEDY, spaceProblem } from './directories.ts';
import { filesMax } from './system-limits.ts';
import { inFleet, ownToken, tlsFilesOf, type ApplianceConfig } from './config.ts';
import { dayOf, readMaterial, RENEWAL_MS, validityOf, invalidityReason, type Validity } from './tls/material.ts';

const CLOCK_SKEW_MS_MAX = 2_000;
const OPEN_FILES_MIN = 4_096;
/** About the rate of a 4K stream to 20 players. A slower disk is unfit to serve. */
const DISK_BYTES_PER_S_MIN = 50e6;
const DISK_SAMPLE_BYTES = 32 * 2 ** 20;
const REQUEST_MS = 5_000;

export interface CheckResult {
  readonly name: string;
  readonly outcome: 'passed' | 'failed' | 'skipped';
  readonly detail: string;
  /** Null unless the check failed. */
  readonly remedy: string | null;
}

type Outcome = Omit<CheckResult, 'name'>;

/** Measurements of the machine itself, which tests replace. */
export interface Probes {
  /** Bytes per second written to the disk of a directory. */
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

/** Runs the checks one after another, so that the disk is measured while nothing else loads it. */
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

/** Fails on a certificate that players refuse, and on one that they will refuse soon. */
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
  const nowMs = systemClock.now();
  const flaw = invalidityReason(validity, nowMs);
  if (flaw !== null) return failed(`${files.tlsCert}: ${flaw}`, 'Renew it, then: kill -HUP PID of the appliance.');
  if (uncovered.length > 0)
    return failed(
      `${files.tlsCert} is for ${subject}, not for ${uncovered.join(', ')}`,
      'Get a certificate for the host names of --advertise, or advertise those that it is for.',
    );
  if (untilMs - nowMs < RENEWAL_MS)
    return failed(`${files.tlsCert} expires on ${dayOf(untilMs)}`, 'Renew it, then: kill -HUP PID of the appliance.');
  return passed(`for ${subject}, until ${dayOf(untilMs)}`);
}

/** The service will have the hard limit of this process. */
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
    const started = systemClock.monotonic();
    for (let at = 0; at < DISK_SAMPLE_BYTES; at += sample.length) await file.write(sample, 0, sample.length, at);
    await file.datasync();
    return DISK_SAMPLE_BYTES / ((systemClock.monotonic() - started) / 1000);
  } finally {
    await file.close();
    await unlink(path);
  }
}

/** Compares the clock with the Date header of steering, or of the origin if there is no steering. */
async function checkClock(config: ApplianceConfig): Promise<Outcome> {
  const url = config.steering[0] === undefined ? config.origin : `${config.steering[0]}/healthz`;
  try {
    const sentMs = systemClock.now();
    const answer = await send(url);
    const receivedMs = systemClock.now();
    const date = Date.parse(String(answer.headers['date'] ?? ''));
    if (Number.isNaN(date)) return skipped(`${url} sends no Date`);
    // Date has whole seconds, so half a second either way is no skew.
    const skewMs = Math.max(0, Math.abs(date + 500 - (sentMs + receivedMs) / 2) - 500);
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
    const { statusCode } = await send(`${config.origin}/`);
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
      const { statusCode } = await send(`${steering}/healthz`);
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

/** Requests the appliance's own plan with its token, so that a wrong token is found before the first fill window. */
async function checkFill(config: ApplianceConfig): Promise<Outcome> {
  if (config.fill === null) return skipped('stand-alone');
  const token = ownToken(config);
  if (token === null)
    return failed('no token', `Give --token; the operator prints one with: larder keys issue --appliance ${config.id}`);
  try {
    await call({ url: `${config.fill}/v1/plans/${config.id}`, token, answer: z.unknown(), timeoutMs: REQUEST_MS });
    return passed(`${config.fill} accepts the token`);
  } catch (error) {
    // The token was accepted, and there is no plan yet.
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

/** Checks that each advertised URL leads to this appliance, which must be running. */
async function checkAdvertised(config: ApplianceConfig): Promise<Outcome> {
  if (config.advertise.length === 0) return skipped('nothing advertised');
  for (const url of config.advertise) {
    try {
      const answer = await send(`${url}/`, 'OPTIONS');
      const answeredBy = answer.headers['larder-appliance'];
      if (answeredBy !== config.id)
        return failed(
          `${url} is answered by ${answeredBy === undefined ? 'something else' : `appliance ${String(answeredBy)}`}`,
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

async function send(
  url: string,
  method: 'GET' | 'OPTIONS' = 'GET',
): Promise<{ statusCode: number; headers: Record<string, string | string[] | undefined> }> {
  const { statusCode, headers, body } = await request(url, {
    method,
    headersTimeout: REQUEST_MS,
    bodyTimeout: REQUEST_MS,
    signal: AbortSignal.timeout(REQUEST_MS),
  });
  await body.dump({ limit: 2 ** 20 });
  return { statusCode, headers };
}
