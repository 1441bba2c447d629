// Titles that every site is to hold whatever their popularity, until a date or until they are unpinned.

import type { Pin } from '../../protocol/answers.ts';
import { Fault } from '../../protocol/faults.ts';
import type { Clock } from '../../runtime/clock.ts';
import { mutex } from '../../runtime/semaphore.ts';
import { commit, under, type State } from '../state.ts';

export const PINS_MAX = 1_000;

export class Pins {
  readonly #state: State;
  readonly #clock: Clock;
  readonly #exclusively = mutex();
  readonly #pins = new Map<string, Pin>();

  private constructor(state: State, clock: Clock) {
    this.#state = state;
    this.#clock = clock;
  }

  static async open(state: State, clock: Clock): Promise<Pins> {
    const pins = new Pins(state, clock);
    for (const pin of await under<Pin>(state, 'pin')) pins.#pins.set(pin.title, pin);
    return pins;
  }

  /** Those in force, by title. */
  list(): Pin[] {
    const now = this.#clock.now();
    const inForce = [...this.#pins.values()].filter((pin) => pin.until === null || Date.parse(pin.until) > now);
    return inForce.sort((a, b) => (a.title < b.title ? -1 : 1));
  }

  titles(): ReadonlySet<string> {
    return new Set(this.list().map((pin) => pin.title));
  }

  put(title: string, until: string | null): Promise<Pin> {
    return this.#exclusively(() => this.#put(title, until));
  }

  remove(title: string): Promise<void> {
    return this.#exclusively(() => this.#remove(title));
  }

  async #put(title: string, until: string | null): Promise<Pin> {
    if (until !== null && Date.parse(until) <= this.#clock.now())
      throw new Fault('body_invalid', `body.until is ${until}: the instant has passed; give a later one, or none`, {
        detail: { field: 'body.until' },
      });
    if (!this.#pins.has(title) && this.#pins.size >= PINS_MAX)
      throw new Fault('overloaded', `${PINS_MAX} titles are pinned, the maximum; unpin one`);
    const pin: Pin = { title, until, since: this.#pins.get(title)?.since ?? new Date(this.#clock.now()).toISOString() };
    await commit(this.#state, [{ type: 'put', key: `pin!${title}`, value: pin }]);
    this.#pins.set(title, pin);
    return pin;
  }

  async #remove(title: string): Promise<void> {
    if (!this.#pins.has(title)) {
      const known = [...this.#pins.keys()].sort().join(', ');
      throw new Fault('not_found', `title "${title}" is not pinned; pinned are ${known || 'none'}`, {
        help: 'There is nothing to undo; `larder fill pin TITLE` would pin it.',
      });
    }
    await commit(this.#state, [{ type: 'del', key: `pin!${title}` }]);
    this.#pins.delete(title);
  }
}
