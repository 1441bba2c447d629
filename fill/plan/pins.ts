// Pins: titles that every site holds whatever their popularity, until a date or until they are unpinned.

import type { Pin } from '../../protocol/answers.ts';
import { Fault } from '../../protocol/faults.ts';
import type { Clock } from '../../runtime/clock.ts';
import { mutex } from '../../runtime/semaphore.ts';
import { commit, readAll, type Database } from '../database.ts';

export const PINS_MAX = 1_000;

export class Pins {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #exclusively = mutex();
  /** By title; expired pins too, until they are unpinned. */
  readonly #pins = new Map<string, Pin>();

  private constructor(database: Database, clock: Clock) {
    this.#database = database;
    this.#clock = clock;
  }

  static async open(database: Database, clock: Clock): Promise<Pins> {
    const pins = new Pins(database, clock);
    for (const pin of await readAll<Pin>(database, 'pin')) pins.#pins.set(pin.title, pin);
    return pins;
  }

  /** Pins that have not expired, by title. */
  list(): Pin[] {
    const nowMs = this.#clock.now();
    const unexpired = [...this.#pins.values()].filter((pin) => pin.until === null || Date.parse(pin.until) > nowMs);
    return unexpired.sort((a, b) => (a.title < b.title ? -1 : 1));
  }

  titles(): ReadonlySet<string> {
    return new Set(this.list().map((pin) => pin.title));
  }

  put(title: string, until: string | null): Promise<Pin> {
    return this.#exclusively(() => this.#put(title, until));
  }

  /** Throws `not_found` if the title is not pinned. */
  remove(title: string): Promise<void> {
    return this.#exclusively(() => this.#remove(title));
  }

  async #put(title: string, until: string | null): Promise<Pin> {
    const nowMs = this.#clock.now();
    if (until !== null && Date.parse(until) <= nowMs)
      throw new Fault('body_invalid', `body.until is ${until}: the instant has passed; give a later one, or none`, {
        detail: { field: 'body.until' },
      });
    if (!this.#pins.has(title) && this.#pins.size >= PINS_MAX)
      throw new Fault('overloaded', `${PINS_MAX} titles are pinned, the maximum; unpin one`);
    const pin: Pin = { title, until, since: this.#pins.get(title)?.since ?? new Date(nowMs).toISOString() };
    await commit(this.#database, [{ type: 'put', key: `pin!${title}`, value: pin }]);
    this.#pins.set(title, pin);
    return pin;
  }

  async #remove(title: string): Promise<void> {
    if (!this.#pins.has(title)) {
      const pinned = [...this.#pins.keys()].sort().join(', ');
      throw new Fault('not_found', `title "${title}" is not pinned; pinned are ${pinned || 'none'}`, {
        help: 'There is nothing to undo; `larder fill pin TITLE` would pin it.',
      });
    }
    await commit(this.#database, [{ type: 'del', key: `pin!${title}` }]);
    this.#pins.delete(title);
  }
}
