// The panel with the appliances of the demo and the buttons that stop, freeze and start them. It is shown only if the fragment
// of the page's URL contains the port and the token of the demo's control service; browsers send fragments to no server.

import { element } from './lanes.js';

const POLL_MS = 1_000;

const STATE_LABELS = { running: 'running', frozen: 'frozen, answers nothing', stopped: 'stopped' };
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

/** The control service named in the fragment; null if there is none. */
export function parseControl(fragment) {
  const match = /^#demo=(\d{1,5})\.([A-Za-z0-9_-]+)$/.exec(fragment);
  return match === null ? null : { url: `http://127.0.0.1:${match[1]}`, token: match[2] };
}

export class FleetPanel {
  #card;
  #list;
  #note;
  #control;
  #rows = new Map();
  #colorOf;
  /** Orders completed so far. */
  #orders = 0;

  constructor({ card, list, note, control, colorOf }) {
    this.#card = card;
    this.#list = list;
    this.#note = note;
    this.#control = control;
    this.#colorOf = colorOf;
  }

  async run() {
    this.#card.hidden = false;
    for (;;) {
      await this.#request('GET', '').catch(() => this.#showNote('The demo does not answer; it has probably ended.'));
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  async #request(method, path) {
    const orders = this.#orders;
    const response = await fetch(`${this.#control.url}/v1/appliances${path}`, {
      method,
      headers: { authorization: `Bearer ${this.#control.token}` },
      cache: 'no-store',
    });
    const body = await response.json();
    if (!response.ok) throw new Error(body.error);
    // A poll that began before an order completed would show an outdated state.
    if (orders !== this.#orders) return;
    if (method === 'POST') this.#orders += 1;
    if (this.#note.dataset.sticky !== 'yes') this.#showNote('');
    for (const appliance of body.appliances) this.#showRow(appliance);
  }

  #showRow({ id, site, state }) {
    const row = this.#rows.get(id) ?? this.#addRow(id, site);
    row.dot.style.setProperty('--lane', this.#colorOf(id));
    if (row.state === state) return;
    row.state = state;
    row.stateLabel.textContent = STATE_LABELS[state];
    row.stateLabel.className = `state state-${state}`;
    const focused = row.buttons.contains(document.activeElement);
    row.buttons.replaceChildren(...ACTIONS[state].map((action) => this.#button(id, action)));
    if (focused) row.buttons.firstElementChild.focus();
  }

  #addRow(id, site) {
    const item = element('li');
    const heading = element('div', 'who');
    const dot = element('span', 'dot');
    const name = element('strong');
    name.textContent = id;
    const small = element('small');
    small.textContent = `site ${site}`;
    heading.append(dot, name, small);
    const text = element('div');
    const stateLabel = element('div', 'state');
    text.append(heading, stateLabel);
    const buttons = element('div', 'buttons');
    item.append(text, buttons);
    this.#list.append(item);
    const row = { state: null, dot, stateLabel, buttons };
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
      this.#showNote(action === 'start' ? `${id} is starting…` : '', 'yes');
      try {
        await this.#request('POST', `/${id}/${action}`);
        this.#showNote('');
      } catch (error) {
        button.disabled = false;
        this.#showNote(error.message, 'yes');
      }
    });
    return button;
  }

  #showNote(text, sticky = 'no') {
    this.#note.dataset.sticky = text === '' ? 'no' : sticky;
    if (this.#note.textContent !== text) this.#note.textContent = text;
  }
}
