// What workers need for TLS, owned by the supervisor: the certificate in force and the keys of session tickets. All workers share
// them, so that a player can resume its session in whichever worker gets its next connection.

import { randomBytes } from 'node:crypto';
import { isFault } from '../../protocol/faults.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import {
  dayOf,
  invalidityReason,
  readMaterial,
  RENEWAL_MS,
  validityOf,
  type TlsFiles,
  type TlsMaterial,
} from './material.ts';

/** A stolen key decrypts recorded sessions of TLS 1.2 this far back. Older tickets cause a full handshake. */
const ROTATION_MS = 12 * 3_600_000;
/** Key name, HMAC key and AES key of 16 bytes each. */
const TICKET_KEY_BYTES = 48;

export interface TlsSecrets extends TlsMaterial {
  /** In base64. */
  readonly ticketKeys: string;
}

export interface CertificateStoreDeps {
  readonly files: TlsFiles;
  readonly clock: Clock;
  readonly log: Log;
  /** Called with new secrets, which every worker must get. */
  readonly onChange: (secrets: TlsSecrets) => void;
}

export class CertificateStore {
  readonly #deps: CertificateStoreDeps;
  #secrets: TlsSecrets;

  /** Throws `config_invalid`. */
  constructor(deps: CertificateStoreDeps) {
    this.#deps = deps;
    this.#secrets = { ...readMaterial(deps.files), ticketKeys: newTicketKeys() };
    this.#warnOfExpiry(this.#secrets);
    deps.clock.setInterval(() => this.#update({ ticketKeys: newTicketKeys() }), ROTATION_MS).unref();
  }

  get secrets(): TlsSecrets {
    return this.#secrets;
  }

  /** Reads the files again. An invalid certificate is logged and the former one stays in force. */
  reload(): void {
    const { files, clock, log } = this.#deps;
    const { tlsCert } = files;
    try {
      const material = readMaterial(files);
      const validity = validityOf(material, []);
      const flaw = invalidityReason(validity, clock.now());
      if (flaw !== null) throw new Error(`${tlsCert}: ${flaw}`);
      this.#update(material);
      this.#warnOfExpiry(material);
      log.info({ tlsCert, until: dayOf(validity.untilMs) }, 'certificate reloaded');
    } catch (error) {
      const { message } = error as Error;
      const fault = isFault(error) ? error.code : null;
      log.error({ problem: message, fault }, 'certificate not reloaded, the former one stays in force');
    }
  }

  #update(changes: Partial<TlsSecrets>): void {
    this.#secrets = { ...this.#secrets, ...changes };
    this.#deps.onChange(this.#secrets);
  }

  #warnOfExpiry(material: TlsMaterial): void {
    const { files, clock, log } = this.#deps;
    const validity = validityOf(material, []);
    const fields = { tlsCert: files.tlsCert, until: dayOf(validity.untilMs) };
    const flaw = invalidityReason(validity, clock.now());
    if (flaw !== null) log.error(fields, `${flaw}: players will refuse it`);
    else if (validity.untilMs - clock.now() < RENEWAL_MS) log.warn(fields, 'the certificate expires soon');
  }
}

const newTicketKeys = (): string => randomBytes(TICKET_KEY_BYTES).toString('base64');
