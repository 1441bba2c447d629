// What workers need to speak TLS, kept by the supervisor: the certificate in force, and the keys of session tickets, which all
// workers share, so that a player resumes with whichever of them gets its next connection.

import { randomBytes } from 'node:crypto';
import { isFault } from '../../protocol/faults.ts';
import type { Log } from '../../runtime/log.ts';
import {
  dayOf,
  readMaterial,
  RENEWAL_MS,
  validityOf,
  invalidityReason,
  type TlsFiles,
  type TlsMaterial,
} from './material.ts';

/** A stolen key opens recorded sessions of TLS 1.2 this far back; a player that comes later shakes hands in full. */
const ROTATE_MS = 12 * 3_600_000;
/** Name, HMAC and AES keys, 16 bytes each. */
const TICKET_KEY_BYTES = 48;

export interface TlsSecrets extends TlsMaterial {
  /** Base64. */
  readonly ticketKeys: string;
}

export class CertificateStore {
  readonly #files: TlsFiles;
  readonly #log: Log;
  readonly #tell: (state: TlsSecrets) => void;
  #state: TlsSecrets;

  /** Throws `config_invalid`. `tell`: a new state is for every worker. */
  constructor(files: TlsFiles, log: Log, tell: (state: TlsSecrets) => void) {
    this.#files = files;
    this.#log = log;
    this.#tell = tell;
    this.#state = { ...readMaterial(files), ticketKeys: newTicketKeys() };
    this.#warn(this.#state);
    setInterval(() => this.#change({ ...this.#state, ticketKeys: newTicketKeys() }), ROTATE_MS).unref();
  }

  get state(): TlsSecrets {
    return this.#state;
  }

  /** The files have changed, or so we are told. What cannot be served with leaves everything as it was. */
  reload(): void {
    try {
      const material = readMaterial(this.#files);
      const validity = validityOf(material, []);
      const flaw = invalidityReason(validity, Date.now());
      if (flaw !== null) throw new Error(`${this.#files.tlsCert}: ${flaw}`);
      this.#change({ ...this.#state, ...material });
      this.#warn(material);
      this.#log.info({ tlsCert: this.#files.tlsCert, until: dayOf(validity.untilMs) }, 'certificate reloaded');
    } catch (error) {
      const { message } = error as Error;
      this.#log.error(
        { problem: message, fault: isFault(error) ? error.code : null },
        'certificate not reloaded, the old one stays',
      );
    }
  }

  #change(state: TlsSecrets): void {
    this.#state = state;
    this.#tell(state);
  }

  #warn(material: TlsMaterial): void {
    const validity = validityOf(material, []);
    const until = dayOf(validity.untilMs);
    const flaw = invalidityReason(validity, Date.now());
    if (flaw !== null) this.#log.error({ tlsCert: this.#files.tlsCert, until }, `${flaw}: players will refuse it`);
    else if (validity.untilMs - Date.now() < RENEWAL_MS)
      this.#log.warn({ tlsCert: this.#files.tlsCert, until }, 'the certificate expires soon');
  }
}

const newTicketKeys = (): string => randomBytes(TICKET_KEY_BYTES).toString('base64');
