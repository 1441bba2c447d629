// Plays one title by hls.js and keeps the record of it: every segment with the pathway that served it, every fail-over,
// every stall. What it finds is told to `on`; it draws nothing itself.

/**
 * A box that hangs accepts connections and answers nothing. Three seconds and one retry is what this page waits for one
 * before hls.js takes the next pathway; refusals and error statuses move on at once.
 */
const PATIENCE = {
  maxTimeToFirstByteMs: 3_000,
  maxLoadTimeMs: 6_000,
  timeoutRetry: { maxNumRetry: 1, retryDelayMs: 0, maxRetryDelayMs: 0 },
  errorRetry: { maxNumRetry: 1, retryDelayMs: 100, maxRetryDelayMs: 500 },
};

const SEGMENTS_KEPT_MAX = 20_000;
const LOOK_MS = 50;
/** A decoder may pause for a frame or two without anybody seeing it. */
const STALL_MIN_MS = 250;
const RECOVERIES_MAX = 3;

const TRACKS = { main: 'video', audio: 'audio', subtitle: 'text' };

export class Watch {
  segments = [];
  lost = [];
  failovers = [];
  stalls = [];
  bytes = 0;
  pathway = null;
  fatal = null;
  #hls;
  #video;
  #on;
  #bases;
  #timer;
  #lastError = null;
  #recoveries = 0;
  #position = { atS: 0, movedMs: performance.now(), started: false };

  /** `answer` is steering's /v1/play; `bufferS` the most that is loaded ahead. */
  constructor({ video, answer, bufferS, on }) {
    this.#video = video;
    this.#on = on;
    this.#bases = answer.pathways.map(({ id, base }) => ({ id, base }));
    const policy = { default: PATIENCE };
    this.#hls = new window.Hls({
      contentSteeringController: fairSteering((url) => this.#pathwayOf(url)),
      enableWorker: false,
      maxBufferLength: bufferS,
      maxMaxBufferLength: bufferS,
      backBufferLength: 30,
      fragLoadPolicy: policy,
      keyLoadPolicy: policy,
      playlistLoadPolicy: policy,
      steeringManifestLoadPolicy: policy,
    });
    const { Events } = window.Hls;
    this.#hls.on(Events.FRAG_LOADED, (_event, data) => this.#served(data));
    this.#hls.on(Events.ERROR, (_event, data) => this.#failed(data));
    this.#hls.loadSource(answer.manifests.find((manifest) => manifest.dialect === 'hls').url);
    this.#hls.attachMedia(video);
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
  }

  get stallsMs() {
    return this.stalls.reduce((sum, stall) => sum + stall.ms, 0);
  }

  get bufferedUntilS() {
    const { buffered, currentTime } = this.#video;
    for (let at = 0; at < buffered.length; at += 1)
      if (buffered.start(at) <= currentTime + 0.1 && buffered.end(at) > currentTime) return buffered.end(at);
    return this.#video.currentTime;
  }

  stop() {
    clearInterval(this.#timer);
    this.#hls.destroy();
  }

  #served({ frag, payload }) {
    const bytes = payload.byteLength;
    this.bytes += bytes;
    if (typeof frag.sn !== 'number') return;
    const track = TRACKS[frag.type] ?? frag.type;
    const pathway = this.#pathwayOf(frag.url);
    const segment = {
      sn: frag.sn,
      track,
      startS: frag.start,
      durationS: frag.duration,
      pathway,
      url: frag.url,
      bytes,
      level: frag.level,
      ms: Math.round(frag.stats.loading.end - frag.stats.loading.start),
      atMs: Math.round(performance.now()),
    };
    if (this.segments.length < SEGMENTS_KEPT_MAX) this.segments.push(segment);
    if (track === 'video' && pathway !== this.pathway) {
      if (this.pathway !== null)
        this.#tellFailover({ from: this.pathway, to: pathway, startS: frag.start, atMs: segment.atMs });
      this.pathway = pathway;
    }
    this.#on.segment(segment);
  }

  #tellFailover(failover) {
    const told = {
      ...failover,
      reason: this.#lastError?.pathway === failover.from ? this.#lastError.reason : 'steered',
    };
    this.failovers.push(told);
    this.#on.failover(told);
  }

  #failed(data) {
    // What another track still asked of a pathway when it was demoted: no failure of its own.
    if (data.details === window.Hls.ErrorDetails.INTERNAL_ABORTED && !data.fatal) return;
    const url = data.frag?.url ?? data.url ?? data.context?.url ?? null;
    const pathway = url === null ? null : this.#pathwayOf(url);
    if (data.type === window.Hls.ErrorTypes.NETWORK_ERROR && pathway !== null) {
      this.#lastError = { pathway, reason: reasonOf(data) };
      this.#demote(pathway);
      if (data.frag !== undefined && typeof data.frag.sn === 'number') {
        const lost = { pathway, startS: data.frag.start, durationS: data.frag.duration, reason: reasonOf(data) };
        if (this.lost.length < SEGMENTS_KEPT_MAX) this.lost.push(lost);
        this.#on.lost(lost);
      }
    }
    if (!data.fatal) return;
    if (data.type === window.Hls.ErrorTypes.MEDIA_ERROR && this.#recoveries < RECOVERIES_MAX) {
      this.#recoveries += 1;
      this.#hls.recoverMediaError();
      return;
    }
    this.fatal = `${data.details}${url === null ? '' : ` (${url})`}`;
    this.#on.fatal(this.fatal);
  }

  /**
   * Takes the failed pathway last. Left to itself hls.js first tries the other renditions of the same appliance, and a box
   * that hangs costs its patience for each of them: a title with muxed sound stalled 8.2 s at 10 s of buffer, now not at all.
   */
  #demote(pathway) {
    const order = this.#hls.pathwayPriority ?? this.#hls.pathways;
    if (order.length > 1 && order[0] === pathway) this.#hls.pathwayPriority = [...order.slice(1), pathway];
  }

  /** Counts as stalled the time in which the film should move and does not. */
  #look() {
    const { currentTime, paused, ended, seeking } = this.#video;
    const nowMs = performance.now();
    const moved = currentTime !== this.#position.atS;
    if (moved || paused || ended || seeking) {
      const ms = nowMs - this.#position.movedMs;
      if (moved && this.#position.started && !seeking && ms >= STALL_MIN_MS)
        this.stalls.push({ atS: currentTime, ms: Math.round(ms) });
      this.#position = { atS: currentTime, movedMs: nowMs, started: this.#position.started || (moved && !seeking) };
      if (seeking) this.#position.started = false;
    }
    this.#on.look();
  }

  #pathwayOf(url) {
    return this.#bases.find(({ base }) => url.startsWith(new URL(base).origin + '/'))?.id ?? new URL(url).host;
  }
}

/**
 * hls.js 1.7.4 blames the pathway of the moment for every failed segment. Sound and picture of a box that hangs fail one
 * after the other, so the second would send the pathway that has just taken over away for five minutes. Here a failure that
 * is not of the pathway of the moment has been answered already.
 */
function fairSteering(pathwayOf) {
  return class extends window.Hls.DefaultConfig.contentSteeringController {
    onError(event, data) {
      const url = data.frag?.url;
      if (url !== undefined && data.errorAction && pathwayOf(url) !== this.pathwayId) data.errorAction.resolved = true;
      else super.onError(event, data);
    }
  };
}

function reasonOf(data) {
  if (data.details.endsWith('TimeOut')) return 'no answer in time';
  const status = data.response?.code ?? 0;
  return status === 0 ? 'connection refused or broken' : `answered ${status}`;
}
