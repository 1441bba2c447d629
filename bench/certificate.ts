// A certificate of a bench's own, and what its clients offer: TLS 1.3 with one cipher, so that all servers use the same.

import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Certificate, Contestant } from './peers.ts';

const run = promisify(execFile);
const CIPHER = 'TLS_AES_128_GCM_SHA256';

export interface Offer {
  /** Environment of OpenSSL's clients. */
  readonly env: Readonly<Record<string, string>>;
  readonly certificate: Certificate;
}

export async function makeCertificate(directory: string): Promise<Offer> {
  const certificate = { certFile: join(directory, 'cert.pem'), keyFile: join(directory, 'key.pem') };
  const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  const files = ['-keyout', certificate.keyFile, '-out', certificate.certFile];
  await run('openssl', ['req', '-x509', ...key, ...subject, ...files]);
  const conf = join(directory, 'openssl.cnf');
  writeFileSync(
    conf,
    `openssl_conf = init
[init]
ssl_conf = ssl
[ssl]
system_default = offered
[offered]
MinProtocol = TLSv1.3
Ciphersuites = ${CIPHER}
`,
  );
  return { certificate, env: { OPENSSL_CONF: conf } };
}

/** What a server and such a client agree on. Throws where it is something else. */
export async function agreed(contestant: Contestant, offer: Offer): Promise<string> {
  const args = ['s_client', '-brief', '-connect', new URL(contestant.url).host];
  const asked = run('openssl', args, { env: { ...process.env, ...offer.env } });
  asked.child.stdin?.end();
  const { stdout, stderr } = await asked;
  const said = `${stdout}${stderr}`;
  const version = /Protocol version: (\S+)/.exec(said)?.[1];
  const cipher = /Ciphersuite: (\S+)/.exec(said)?.[1];
  if (version !== 'TLSv1.3' || cipher !== CIPHER)
    throw new Error(
      `${contestant.name} speaks ${version ?? 'no TLS'} with ${cipher ?? 'no cipher'}: ${said.slice(0, 500)}`,
    );
  return `${version} ${cipher}`;
}
