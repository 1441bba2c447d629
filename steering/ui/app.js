// The player page: choose a title, play it along the pathways that steering ranks, show which appliance served each segment and
// why. `window.larderPage` exposes the recorded playback to tests. Parameters of the URL:
//   ?title=ID   plays this title at once     ?buffer=SECONDS   limits the buffer (30)     #demo=PORT.TOKEN   the demo's control

import { FleetPanel, parseControl } from './fleet.js';
import { Lanes, element, formatBytes, formatTime } from './lanes.js';
import { Playback } from './playback.js';

const BUFFER_S = 30;
const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const bufferS = Math.max(2, Number(query.get('buffer')) || BUFFER_S);

const video = $('video');
const lanes = new Lanes($('lanes'));
const colors = new Map();
/** By title id. */
const titles = new Map();
let playback = null;
let chosen = null;
let answer = null;

window.larderPage = {
  get ready() {
    return playback !== null;
  },
  get title() {
    return chosen?.id ?? null;
  },
  get decision() {
    return answer;
  },
  get segments() {
    return playback?.segments ?? [];
  },
  get lost() {
    return playback?.lost ?? [];
  },
  get failovers() {
    return playback?.failovers ?? [];
  },
  get stalls() {
    return playback?.stalls ?? [];
  },
  get stallsMs() {
    return playback?.stallsMs ?? 0;
  },
  get pathway() {
    return playback?.pathway ?? null;
  },
  get positionS() {
    return video.currentTime;
  },
  get bufferS() {
    return playback === null ? 0 : Math.max(0, playback.bufferedUntilS - video.currentTime);
  },
  get fatal() {
    return playback?.fatal ?? null;
  },
  choose: (id) => choose(id),
};

await begin();

async function begin() {
  const control = parseControl(location.hash);
  if (control !== null) {
    const panel = new FleetPanel({ card: $('fleet-card'), list: $('fleet'), note: $('fleet-note'), control, colorOf });
    void panel.run();
  }
  // A browser that plays HLS natively would not reveal which appliance served a segment.
  if (window.Hls === undefined || !window.Hls.isSupported())
    return notice('This browser has no Media Source Extensions, which the player of this page needs.');
  $('why-again').addEventListener('click', () => void explainAgain());
  try {
    listTitles((await getJson('/v1/titles')).titles.filter((title) => title.dialects.includes('hls')));
  } catch (error) {
    notice(`Steering did not list the titles: ${error.message}`);
  }
}

function listTitles(playable) {
  if (playable.length === 0) {
    $('titles-empty').textContent = 'No title yet. Import one with: larder catalog import URL';
    return;
  }
  $('titles-empty').remove();
  for (const title of playable) {
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
    titles.set(title.id, { ...title, radio });
  }
  const first = query.get('title') ?? '';
  if (titles.has(first)) void choose(first);
}

async function choose(id) {
  chosen = titles.get(id);
  chosen.radio.checked = true;
  playback?.stop();
  playback = null;
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
  playback = new Playback({ video, answer, bufferS, on: { segment, lost, failover, fatal, sample } });
  showWhy();
  showNumbers();
  // Some browsers refuse to play before a gesture; the controls of the video element serve for that.
  await video.play().catch(() => undefined);
}

function segment(served) {
  const { track, startS, pathway, bytes, ms } = served;
  lanes.addSegment({ ...served, label: `${track} ${formatTime(startS)}: ${pathway}, ${formatBytes(bytes)}, ${ms} ms` });
  lanes.describe();
  if (track === 'video' && pathway === playback?.pathway) markCurrent();
}

function lost(failed) {
  lanes.addFailure({ ...failed, label: `${formatTime(failed.startS)}: ${failed.pathway}, ${failed.reason}` });
}

function failover({ from, to, startS, reason }) {
  $('now').replaceChildren(
    strong(to),
    ` has taken over from ${from} at ${formatTime(startS)}${reason === 'steered' ? '' : ` (${reason})`}.`,
  );
}

function fatal(reason) {
  notice(`Playback cannot continue: ${reason}. Choose the title again to retry.`);
}

function sample() {
  lanes.moveTo({ positionS: video.currentTime, bufferedUntilS: playback.bufferedUntilS, current: playback.pathway });
  showNumbers();
}

/** Session and pathway that are marked as current. */
let marked = null;

function markCurrent() {
  if (playback.failovers.length === 0 && marked !== `${answer.id} ${playback.pathway}`)
    $('now').replaceChildren(strong(playback.pathway), ` serves ${chosen.name || chosen.id}.`);
  marked = `${answer.id} ${playback.pathway}`;
  for (const item of $('why').children) item.querySelector('.current').hidden = item.dataset.id !== playback.pathway;
}

function showNumbers() {
  const set = (id, text) => {
    if ($(id).textContent !== text) $(id).textContent = text;
  };
  set('n-pathway', playback?.pathway ?? '–');
  set('n-segments', String(playback?.segments.length ?? 0));
  set('n-bytes', formatBytes(playback?.bytes ?? 0));
  set('n-failovers', String(playback?.failovers.length ?? 0));
  set('n-buffer', `${window.larderPage.bufferS.toFixed(1)} s`);
  set('n-stalls', `${(window.larderPage.stallsMs / 1000).toFixed(1)} s`);
}

function showWhy(decision = answer) {
  const { client } = decision;
  const location = {
    prefix: `belongs to ${client.prefix}: site ${client.site}`,
    position: `is in no known prefix; site ${client.site} is nearest`,
    default: `is in no known prefix; site ${client.site} is the default`,
    none: 'is in no known prefix',
  }[client.by];
  $('why-location').textContent = `Your address ${client.address} ${location}.`;
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
      current.hidden = pathway.id !== playback?.pathway;
      const reason = element('p');
      reason.textContent = pathway.reason;
      item.append(head, current, reason);
      return item;
    }),
  );
  $('why-again').disabled = false;
}

/** Requests a new decision and shows it. The running play keeps its pathways. */
async function explainAgain() {
  try {
    const fresh = await getJson(`/v1/play/${encodeURIComponent(chosen.id)}?session=${answer.id}`);
    colorPathways(fresh.pathways);
    showWhy(fresh);
  } catch (error) {
    $('why-location').textContent = `Steering did not answer (${error.message}); playback continues without it.`;
  }
}

function colorPathways(pathways) {
  for (const { id } of pathways) colorOf(id);
}

/** An appliance keeps its colour while the page is open. */
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
  const created = element('strong');
  created.textContent = text;
  return created;
}

async function getJson(path) {
  const response = await fetch(path, { cache: 'no-store' });
  const body = await response.json();
  if (!response.ok) throw new Error(body.error?.message ?? `status ${response.status}`);
  return body;
}
