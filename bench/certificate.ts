// The certificate of a TLS bench, and the OpenSSL configuration of its clients: TLS 1.3 with a single cipher suite, so that all
// servers use the same.

import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Contestant, TlsFiles } from './contestants.ts';

const run = promisify(execFile);
const CIPHER_SUITE = 'TLS_AES_128_GCM_SHA256';

interface TlsSetup {
  readonly files: TlsFiles;
  /** Environment of clients that use OpenSSL. */
  readonly clientEnv: Readonly<Record<string, string>>;
}

export async function createCertificate(directory: string): Promise<TlsSetup> {
  const files = { certFile: join(directory, 'cert.pem'), keyFile: join(directory, 'key.pem') };
  const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  const output = ['-keyout', files.keyFile, '-out', files.certFile];
  await run('openssl', ['req', '-x509', ...key, ...subject, ...output]);
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
Ciphersuites = ${CIPHER_SUITE}
`,
  );
  return { files, clientEnv: { OPENSSL_CONF: conf } };
}

/** The protocol version and cipher suite that a server negotiates with such a client. Throws if they are not the expected ones. */
export async function negotiatedTls(contestant: Contestant, tls: TlsSetup): Promise<string> {
  const args = ['s_client', '-brief', '-connect', new URL(contestant.url).host];
  const handshake = run('openssl', args, { env: { ...process.env, ...tls.clientEnv } });
  handshake.child.stdin?.end();
  const { stdout, stderr } = await handshake;
  const output = `${stdout}${stderr}`;
  const version = /Protocol version: (\S+)/.exec(output)?.[1];
  const cipher = /Ciphersuite: (\S+)/.exec(output)?.[1];
  if (version !== 'TLSv1.3' || cipher !== CIPHER_SUITE)
    throw new Error(
      `${contestant.name} speaks ${version ?? 'no TLS'} with ${cipher ?? 'no cipher'}: ${output.slice(0, 500)}`,
    );
  return `${version} ${cipher}`;
}
