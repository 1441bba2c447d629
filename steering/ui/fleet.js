// The demo's fleet and its buttons. Only there where the page was opened with the port and the token of a demo's control
// in its fragment; a browser sends a fragment to no server.

import { element } from './lanes.js';

const LOOK_MS = 1_000;

const WORDS = { running: 'running', frozen: 'frozen, answers nothing', stopped: 'stopped' };
const ACTIONS = {
  running: [
    { action: 'stop', label: 'Stop', hint: 'kill -9' },
    { action: 'freeze', label: 'Freeze', hint: 'SIGSTOP' },
  ],
  frozen: [
    { action: 'stop', label: 'Stop', hint: 'kill -9' },
    { action: 'thaw', label: 'Thaw', hint: 'SIGCONT' },
  ],
  stopped: [{ action: 'start', label: 'Start', hint: 'start it again, with the disk it had' }],
};

/** Null where the page was opened without a control port. */
export function controlFrom(hash) {
  const named = /^#demo=(\d{1,5})\.([A-Za-z0-9_-]+)$/.exec(hash);
  return named === null ? null : { control: `http://127.0.0.1:${named[1]}`, token: named[2] };
}

export class FleetPanel {
  #card;
  #list;
  #note;
  #door;
  #rows = new Map();
  #colorOf;
  #orders = 0;

  constructor({ card, list, note, door, colorOf }) {
    this.#card = card;
    this.#list = list;
    this.#note = note;
    this.#door = door;
    this.#colorOf = colorOf;
  }

  async run() {
    this.#card.hidden = false;
    for (;;) {
      await this.#ask('GET', '').catch(() => this.#say('The demo does not answer; it has probably ended.'));
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  async #ask(method, path) {
    const orders = this.#orders;
    const response = await fetch(`${this.#door.control}/v1/appliances${path}`, {
      method,
      headers: { authorization: `Bearer ${this.#door.token}` },
      cache: 'no-store',
    });
    const body = await response.json();
    if (!response.ok) throw new Error(body.error);
    // A look that began before an order ended shows the fleet as it was.
    if (orders !== this.#orders) return;
    if (method === 'POST') this.#orders += 1;
    if (this.#note.dataset.sticky !== 'yes') this.#say('');
    for (const appliance of body.appliances) this.#show(appliance);
  }

  #show({ id, site, state }) {
    const row = this.#rows.get(id) ?? this.#addRow(id, site);
    row.dot.style.setProperty('--lane', this.#colorOf(id));
    if (row.state === state) return;
    row.state = state;
    row.word.textContent = WORDS[state];
    row.word.className = `state state-${state}`;
    const focused = row.buttons.contains(document.activeElement);
    row.buttons.replaceChildren(...ACTIONS[state].map((action) => this.#button(id, action)));
    if (focused) row.buttons.firstElementChild.focus();
  }

  #addRow(id, site) {
    const item = element('li');
    const who = element('div', 'who');
    const dot = element('span', 'dot');
    const name = element('strong');
    name.textContent = id;
    const small = element('small');
    small.textContent = `site ${site}`;
    who.append(dot, name, small);
    const text = element('div');
    const word = element('div', 'state');
    text.append(who, word);
    const buttons = element('div', 'buttons');
    item.append(text, buttons);
    this.#list.append(item);
    const row = { state: null, dot, word, buttons };
    this.#rows.set(id, row);
    return row;
  }

  #button(id, { action, label, hint }) {
    const button = element('button');
    button.type = 'button';
    button.textContent = label;
    button.title = hint;
    button.setAttribute('aria-label', `${label} ${id}`);
    button.addEventListener('click', async () => {
      button.disabled = true;
      this.#say(action === 'start' ? `${id} is starting…` : '', 'yes');
      try {
        await this.#ask('POST', `/${id}/${action}`);
        this.#say('');
      } catch (error) {
        button.disabled = false;
        this.#say(error.message, 'yes');
      }
    });
    return button;
  }

  #say(text, sticky = 'no') {
    this.#note.dataset.sticky = text === '' ? 'no' : sticky;
    if (this.#note.textContent !== text) this.#note.textContent = text;
  }
}
