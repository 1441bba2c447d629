// Control-plane tokens. Steering and fill share one secret per fleet, in a file with mode 0600. A token is a name with its HMAC under
// that secret, so verifying one needs no registry, and the token of an appliance proves nothing but its own name.

import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import {
  closeSync,
  fchmodSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  statSync,
  unlinkSync,
  writeSync,
  fsyncSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { Fault } from '../protocol/faults.ts';

/** An `operator` may do everything, a `service` is steering or fill calling the other, an `appliance` acts for its own id. */
export type Role = 'operator' | 'service' | 'appliance';

export interface Caller {
  readonly role: Role;
  /** Appliance id, or the name of the role. */
  readonly id: string;
}

const KEY_BYTES = 32;

/** The default of `--fleet-key`. */
export const defaultFleetKeyFile = (): string =>
  join(process.env['LARDER_HOME'] ?? join(homedir(), '.larder'), 'fleet.key');

/** Reads the fleet key, or returns null if the file does not exist. Throws `config_invalid` if others may read the file. */
export function readFleetKey(file: string): Buffer | null {
  let mode: number;
  try {
    mode = statSync(file).mode;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
  if ((mode & 0o077) !== 0) throw new Fault('config_invalid', `${file} can be read by others; run: chmod 600 ${file}`);
  const key = Buffer.from(readFileSync(file, 'utf8').trim(), 'hex');
  if (key.length !== KEY_BYTES)
    throw new Fault('config_invalid', `${file} holds no fleet key: 64 hexadecimal digits are expected`);
  return key;
}

/** Reads the fleet key or creates one. The complete key is linked into place, so two services that start at once get the same key. */
export function ensureFleetKey(file: string): Buffer {
  const present = readFleetKey(file);
  if (present !== null) return present;
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  // Processes of two containers may have the same id.
  const temporary = `${file}.${randomBytes(8).toString('hex')}.tmp`;
  const fd = openSync(temporary, 'wx', 0o600);
  try {
    fchmodSync(fd, 0o600);
    writeSync(fd, `${randomBytes(KEY_BYTES).toString('hex')}\n`);
    fsyncSync(fd);
    linkSync(temporary, file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    closeSync(fd);
    unlinkSync(temporary);
  }
  return readFleetKey(file)!;
}

export function issueToken(key: Buffer, caller: Caller): string {
  return `larder_${caller.role}_${caller.id}_${mac(key, caller).toString('hex')}`;
}

/** Throws `token_missing` or `token_forged`. */
export function verifyToken(key: Buffer, authorization: string | undefined): Caller {
  const bearer = /^Bearer +(\S{1,300})$/i.exec(authorization ?? '');
  if (bearer === null) throw new Fault('token_missing', 'no bearer token was sent');
  const parts = /^larder_(operator|service|appliance)_([a-z0-9][a-z0-9._-]{0,62})_([0-9a-f]{64})$/.exec(bearer[1]!);
  if (parts === null) throw new Fault('token_forged', 'the token does not have the format of a Larder token');
  const caller: Caller = { role: parts[1] as Role, id: parts[2]! };
  if (!timingSafeEqual(Buffer.from(parts[3]!, 'hex'), mac(key, caller)))
    throw new Fault('token_forged', `the token for ${caller.role} ${caller.id} was not made with this fleet's key`);
  return caller;
}

function mac(key: Buffer, caller: Caller): Buffer {
  return createHmac('sha256', key).update(`larder-token-1\0${caller.role}\0${caller.id}`).digest();
}
