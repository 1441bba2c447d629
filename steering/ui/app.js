// The page: choose a title, play it along the pathways that steering ranks, draw who served each segment and say why.
//   ?title=ID      begin with this title     ?buffer=SECONDS  load at most so far ahead (30)
//   #demo=…        the demo's control port   window.larderPage is the record, for tests

import { FleetPanel, controlFrom } from './fleet.js';
import { Lanes, element, formatBytes, formatTime } from './lanes.js';
import { Watch } from './watch.js';

const BUFFER_S = 30;
const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const bufferS = Math.max(2, Number(query.get('buffer')) || BUFFER_S);

const video = $('video');
const lanes = new Lanes($('lanes'));
const colors = new Map();
const offered = new Map();
let watch = null;
let chosen = null;
let answer = null;

window.larderPage = {
  get ready() {
    return watch !== null;
  },
  get title() {
    return chosen?.id ?? null;
  },
  get decision() {
    return answer;
  },
  get segments() {
    return watch?.segments ?? [];
  },
  get lost() {
    return watch?.lost ?? [];
  },
  get failovers() {
    return watch?.failovers ?? [];
  },
  get stalls() {
    return watch?.stalls ?? [];
  },
  get stallsMs() {
    return watch?.stallsMs ?? 0;
  },
  get pathway() {
    return watch?.pathway ?? null;
  },
  get positionS() {
    return video.currentTime;
  },
  get bufferS() {
    return watch === null ? 0 : Math.max(0, watch.bufferedUntilS - video.currentTime);
  },
  get fatal() {
    return watch?.fatal ?? null;
  },
  choose: (id) => choose(id),
};

await begin();

async function begin() {
  const door = controlFrom(location.hash);
  if (door !== null) {
    const panel = new FleetPanel({ card: $('fleet-card'), list: $('fleet'), note: $('fleet-note'), door, colorOf });
    void panel.run();
  }
  // Chromium plays HLS by itself too, but then nobody could say which appliance served what.
  if (window.Hls === undefined || !window.Hls.isSupported())
    return notice('This browser has no Media Source Extensions, which the player of this page needs.');
  $('why-again').addEventListener('click', () => void explainAgain());
  try {
    offer((await getJson('/v1/titles')).titles.filter((title) => title.dialects.includes('hls')));
  } catch (error) {
    notice(`Steering did not say which titles there are: ${error.message}`);
  }
}

function offer(titles) {
  if (titles.length === 0) {
    $('titles-empty').textContent = 'No title yet. Import one with: larder catalog import URL';
    return;
  }
  $('titles-empty').remove();
  for (const title of titles) {
    const label = element('label');
    const radio = element('input');
    radio.type = 'radio';
    radio.name = 'title';
    radio.value = title.id;
    radio.addEventListener('change', () => void choose(title.id));
    const time = element('small');
    time.textContent = formatTime(title.durationS);
    label.append(radio, title.name || title.id, time);
    $('titles').append(label);
    offered.set(title.id, { ...title, radio });
  }
  const first = query.get('title') ?? '';
  if (offered.has(first)) void choose(first);
}

async function choose(id) {
  chosen = offered.get(id);
  chosen.radio.checked = true;
  watch?.stop();
  watch = null;
  notice('');
  try {
    answer = await getJson(`/v1/play/${encodeURIComponent(id)}`);
  } catch (error) {
    return notice(`Steering did not answer for ${id}: ${error.message}`);
  }
  colorPathways(answer.pathways);
  lanes.reset(
    answer.pathways.map((pathway) => ({ id: pathway.id, site: pathway.site, color: colorOf(pathway.id) })),
    chosen.durationS,
  );
  watch = new Watch({ video, answer, bufferS, on: { segment, lost, failover, fatal, look } });
  showWhy();
  showNumbers();
  // Refused where the browser wants a gesture first; the player's own button is there for that.
  await video.play().catch(() => undefined);
}

function segment(one) {
  lanes.served({
    ...one,
    label: `${one.track} ${formatTime(one.startS)}: ${one.pathway}, ${formatBytes(one.bytes)}, ${one.ms} ms`,
  });
  lanes.describe();
  if (one.track === 'video' && one.pathway === watch?.pathway) markCurrent();
}

function lost(one) {
  lanes.lost({ ...one, label: `${formatTime(one.startS)}: ${one.pathway}, ${one.reason}` });
}

function failover({ from, to, startS, reason }) {
  $('now').replaceChildren(
    strong(to),
    ` has taken over from ${from} at ${formatTime(startS)}${reason === 'steered' ? '' : ` (${reason})`}.`,
  );
}

function fatal(reason) {
  notice(`The film cannot go on: ${reason}. Choose it again to retry.`);
}

function look() {
  lanes.move({ positionS: video.currentTime, bufferedUntilS: watch.bufferedUntilS, current: watch.pathway });
  showNumbers();
}

let markedAs = null;

function markCurrent() {
  if (watch.failovers.length === 0 && markedAs !== `${answer.id} ${watch.pathway}`)
    $('now').replaceChildren(strong(watch.pathway), ` serves ${chosen.name || chosen.id}.`);
  markedAs = `${answer.id} ${watch.pathway}`;
  for (const item of $('why').children) item.querySelector('.current').hidden = item.dataset.id !== watch.pathway;
}

function showNumbers() {
  const set = (id, text) => {
    if ($(id).textContent !== text) $(id).textContent = text;
  };
  set('n-pathway', watch?.pathway ?? '–');
  set('n-segments', String(watch?.segments.length ?? 0));
  set('n-bytes', formatBytes(watch?.bytes ?? 0));
  set('n-failovers', String(watch?.failovers.length ?? 0));
  set('n-buffer', `${window.larderPage.bufferS.toFixed(1)} s`);
  set('n-stalls', `${(window.larderPage.stallsMs / 1000).toFixed(1)} s`);
}

function showWhy(decision = answer) {
  const { client } = decision;
  const place = {
    prefix: `belongs to ${client.prefix}: site ${client.site}`,
    position: `is in no known prefix; site ${client.site} is nearest`,
    default: `is in no known prefix; site ${client.site} is the default`,
    none: 'is in no known prefix',
  }[client.by];
  $('why-footing').textContent = `Your address ${client.address} ${place}.`;
  $('why').replaceChildren(
    ...decision.pathways.map((pathway) => {
      const item = element('li');
      item.dataset.id = pathway.id;
      item.style.setProperty('--lane', colorOf(pathway.id));
      const head = element('strong');
      const small = element('small');
      small.textContent = pathway.site === null ? '' : ` site ${pathway.site}`;
      head.append(pathway.id, small);
      const current = element('span', 'current');
      current.textContent = 'serving now';
      current.hidden = pathway.id !== watch?.pathway;
      const reason = element('p');
      reason.textContent = pathway.reason;
      item.append(head, current, reason);
      return item;
    }),
  );
  $('why-again').disabled = false;
}

/** Asks for a fresh decision; the play that runs keeps the pathways it was given. */
async function explainAgain() {
  try {
    const fresh = await getJson(`/v1/play/${encodeURIComponent(chosen.id)}?session=${answer.id}`);
    colorPathways(fresh.pathways);
    showWhy(fresh);
  } catch (error) {
    $('why-footing').textContent = `Steering did not answer (${error.message}); the film goes on without it.`;
  }
}

function colorPathways(pathways) {
  for (const { id } of pathways) colorOf(id);
}

/** A colour stays with its appliance for as long as the page is open. */
function colorOf(id) {
  if (id === 'origin') return 'var(--lane-origin)';
  if (!colors.has(id)) colors.set(id, `var(--lane-${colors.size % 4})`);
  return colors.get(id);
}

function notice(text) {
  $('notice').hidden = text === '';
  $('notice').textContent = text;
}

function strong(text) {
  const made = element('strong');
  made.textContent = text;
  return made;
}

async function getJson(path) {
  const response = await fetch(path, { cache: 'no-store' });
  const body = await response.json();
  if (!response.ok) throw new Error(body.error?.message ?? `status ${response.status}`);
  return body;
}
