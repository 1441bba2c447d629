// The diagram of which appliance served which segment: a lane per pathway and a tick per segment at its time in the title. Ticks
// are added as segments arrive and never redrawn; only the buffer and the playhead move.

const TICKS_MAX = 20_000;

export class Lanes {
  #root;
  #lanes = new Map();
  #durationS = 1;
  #ticks = 0;

  constructor(root) {
    this.#root = root;
  }

  /** One lane per pathway, best first. */
  reset(pathways, durationS) {
    this.#root.replaceChildren();
    this.#lanes.clear();
    this.#durationS = Math.max(1, durationS);
    this.#ticks = 0;
    for (const pathway of pathways) this.#addLane(pathway);
    if (pathways.length > 0) this.#root.append(timeAxis(this.#durationS));
  }

  addSegment({ pathway, startS, durationS, track, label, bytes }) {
    const lane = this.#lanes.get(pathway);
    if (lane === undefined) return;
    lane.segments += 1;
    lane.bytes += bytes;
    lane.sum.textContent = `${lane.segments} · ${formatBytes(lane.bytes)}`;
    this.#addTick(lane, { startS, durationS, className: track === 'video' ? 'tick' : 'tick tick-side', label });
  }

  addFailure({ pathway, startS, durationS, label }) {
    const lane = this.#lanes.get(pathway);
    if (lane !== undefined) this.#addTick(lane, { startS, durationS, className: 'tick tick-lost', label });
  }

  /** Shows the playback position and the buffer ahead of it. */
  moveTo({ positionS, bufferedUntilS, current }) {
    for (const [pathway, lane] of this.#lanes) {
      lane.playhead.style.left = this.#percent(positionS);
      lane.buffer.hidden = pathway !== current;
      lane.buffer.style.left = this.#percent(positionS);
      lane.buffer.style.width = this.#percent(Math.max(0, bufferedUntilS - positionS));
    }
  }

  /** Updates the text alternative of the diagram. */
  describe() {
    const parts = [...this.#lanes]
      .filter(([, lane]) => lane.segments > 0)
      .map(([pathway, lane]) => `${pathway} served ${lane.segments} segments, ${formatBytes(lane.bytes)}`);
    this.#root.setAttribute('aria-label', parts.length === 0 ? 'No segment yet' : parts.join('; '));
  }

  #addLane({ id, site, color }) {
    const name = element('div', 'lane-name');
    const dot = element('span', 'dot');
    const text = element('span');
    text.append(id);
    const small = element('small');
    small.textContent = site === null ? '' : `site ${site}`;
    name.append(dot, text, small);
    const track = element('div', 'lane-track');
    const buffer = element('div', 'lane-buffer');
    buffer.hidden = true;
    const playhead = element('div', 'playhead');
    track.append(buffer, playhead);
    const sum = element('div', 'lane-sum');
    sum.textContent = '–';
    for (const part of [name, track]) part.style.setProperty('--lane', color);
    const row = element('div', 'lane');
    row.append(name, track, sum);
    this.#root.append(row);
    this.#lanes.set(id, { track, buffer, playhead, sum, segments: 0, bytes: 0 });
  }

  #addTick(lane, { startS, durationS, className, label }) {
    if (this.#ticks >= TICKS_MAX) return;
    this.#ticks += 1;
    const tick = element('div', className);
    tick.style.left = this.#percent(startS);
    tick.style.width = this.#percent(durationS);
    tick.title = label;
    lane.track.insertBefore(tick, lane.playhead);
  }

  #percent(seconds) {
    return `${Math.min(100, (Math.max(0, seconds) / this.#durationS) * 100)}%`;
  }
}

function timeAxis(durationS) {
  const row = element('div', 'lane-axis');
  const marks = 4;
  for (let mark = 0; mark <= marks; mark += 1) {
    const label = element('span');
    label.textContent = formatTime((durationS * mark) / marks);
    label.style.left = `${(mark / marks) * 100}%`;
    row.append(label);
  }
  return row;
}

export function element(name, className = '') {
  const created = document.createElement(name);
  if (className !== '') created.className = className;
  return created;
}

export function formatTime(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`;
}

export function formatBytes(bytes) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2)} ${units[unit]}`;
}
