// The certificate and key files: read them, check that they belong together and that OpenSSL accepts them, and report their dates
// and names. Also the TLS settings of the listener. Nothing here does network I/O.

import { constants, createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureContext, type SecureContextOptions } from 'node:tls';
import { Fault } from '../../protocol/faults.ts';

/** A certificate that expires sooner than this should have been renewed by now. */
export const RENEWAL_MS = 14 * 86_400_000;

/**
 * AES-128 comes first, because it is secure enough and costs less per byte than AES-256. Clients without AES in hardware put
 * ChaCha20 first and get it. TLS 1.2, which older televisions still need, is limited to suites with forward secrecy and
 * authenticated encryption.
 */
const CIPHERS = [
  'TLS_AES_128_GCM_SHA256',
  'TLS_AES_256_GCM_SHA384',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-RSA-CHACHA20-POLY1305',
].join(':');

/** In PEM; the certificate chain has the leaf first. */
export interface TlsMaterial {
  readonly cert: string;
  readonly key: string;
}

export interface TlsFiles {
  readonly tlsCert: string;
  readonly tlsKey: string;
}

/** Throws `config_invalid` with the file and the remedy. */
export function readMaterial({ tlsCert, tlsKey }: TlsFiles): TlsMaterial {
  const material = { cert: readPem('--tls-cert', tlsCert), key: readPem('--tls-key', tlsKey) };
  const leaf = leafOf(material, tlsCert);
  const key = privateKeyOf(material, tlsKey);
  if (!leaf.checkPrivateKey(key))
    throw invalid(
      `--tls-key ${tlsKey} does not belong to the certificate in --tls-cert ${tlsCert}; give the key with which the certificate was asked for, and put its certificate first in the file`,
    );
  try {
    createSecureContext(secureContextOptions(material));
  } catch (error) {
    throw invalid(
      `--tls-cert ${tlsCert} cannot be served with (${(error as Error).message}); give a chain of PEM certificates with keys of today's size`,
      error,
    );
  }
  return material;
}

/** Options of the TLS server, except its ticket keys. */
export const secureContextOptions = ({ cert, key }: TlsMaterial): SecureContextOptions => ({
  cert,
  key,
  minVersion: 'TLSv1.2',
  ciphers: CIPHERS,
  honorCipherOrder: true,
  secureOptions: constants.SSL_OP_PRIORITIZE_CHACHA,
  // Must be equal in all workers, or none could resume a session that another one began.
  sessionIdContext: 'larder',
});

export interface Validity {
  readonly fromMs: number;
  readonly untilMs: number;
  readonly subject: string;
  /** The given hosts that the certificate does not cover. */
  readonly uncovered: readonly string[];
}

/** `hosts` are the names or addresses at which players reach the appliance. */
export function validityOf(material: TlsMaterial, hosts: readonly string[]): Validity {
  const leaf = new X509Certificate(material.cert);
  const covers = (host: string): boolean =>
    (isAddress(host) ? leaf.checkIP(host.replaceAll(/[[\]]/g, '')) : leaf.checkHost(host)) !== undefined;
  return {
    fromMs: Date.parse(leaf.validFrom),
    untilMs: Date.parse(leaf.validTo),
    subject: (leaf.subjectAltName ?? leaf.subject).replaceAll('\n', ', ').slice(0, 200),
    uncovered: hosts.filter((host) => !covers(host)),
  };
}

/** Why players refuse the certificate because of its dates; null if they do not. */
export function invalidityReason({ fromMs, untilMs }: Validity, nowMs: number): string | null {
  if (nowMs > untilMs) return `the certificate expired on ${dayOf(untilMs)}`;
  if (nowMs < fromMs) return `the certificate is valid from ${dayOf(fromMs)} only`;
  return null;
}

export const dayOf = (ms: number): string => new Date(ms).toISOString().slice(0, 10);

const isAddress = (host: string): boolean => host.startsWith('[') || /^\d{1,3}(\.\d{1,3}){3}$/.test(host);

function readPem(flag: string, file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw invalid(
      `${flag} ${file} cannot be read (${(error as NodeJS.ErrnoException).code}); give a PEM file that this user may read`,
      error,
    );
  }
}

function leafOf({ cert }: TlsMaterial, file: string): X509Certificate {
  try {
    return new X509Certificate(cert);
  } catch (error) {
    throw invalid(
      `--tls-cert ${file} is no certificate; give a PEM file that begins with -----BEGIN CERTIFICATE-----`,
      error,
    );
  }
}

function privateKeyOf({ key }: TlsMaterial, file: string): ReturnType<typeof createPrivateKey> {
  try {
    return createPrivateKey(key);
  } catch (error) {
    const encrypted = (error as NodeJS.ErrnoException).code === 'ERR_MISSING_PASSPHRASE' || /ENCRYPTED/.test(key);
    throw invalid(
      encrypted
        ? `--tls-key ${file} is encrypted; take the passphrase off with: openssl pkey -in ${file} -out plain.pem`
        : `--tls-key ${file} is no private key; give a PEM file that begins with -----BEGIN PRIVATE KEY-----`,
      error,
    );
  }
}

const invalid = (message: string, cause?: unknown): Fault => new Fault('config_invalid', message, { cause });
