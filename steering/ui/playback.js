// Plays one title with hls.js and records every segment with the pathway that served it, every fail-over and every stall. It
// reports them to the callbacks in `on` and draws nothing itself.

/**
 * An appliance that hangs accepts connections but never answers. The page allows it three seconds and one retry before hls.js
 * switches to the next pathway. After refused connections and error statuses it switches at once.
 */
const LOAD_POLICY = {
  maxTimeToFirstByteMs: 3_000,
  maxLoadTimeMs: 6_000,
  timeoutRetry: { maxNumRetry: 1, retryDelayMs: 0, maxRetryDelayMs: 0 },
  errorRetry: { maxNumRetry: 1, retryDelayMs: 100, maxRetryDelayMs: 500 },
};

const SEGMENTS_RECORDED_MAX = 20_000;
const SAMPLE_MS = 50;
/** Shorter pauses of the decoder, of a frame or two, are not visible. */
const STALL_MIN_MS = 250;
const RECOVERIES_MAX = 3;

const TRACKS = { main: 'video', audio: 'audio', subtitle: 'text' };

export class Playback {
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

  /** `answer` is that of steering's /v1/play; `bufferS` limits how far ahead segments are loaded. */
  constructor({ video, answer, bufferS, on }) {
    this.#video = video;
    this.#on = on;
    this.#bases = answer.pathways.map(({ id, base }) => ({ id, base }));
    const policy = { default: LOAD_POLICY };
    this.#hls = new window.Hls({
      contentSteeringController: steeringControllerFor((url) => this.#pathwayOf(url)),
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
    this.#hls.on(Events.FRAG_LOADED, (_event, data) => this.#recordSegment(data));
    this.#hls.on(Events.ERROR, (_event, data) => this.#recordError(data));
    this.#hls.loadSource(answer.manifests.find((manifest) => manifest.dialect === 'hls').url);
    this.#hls.attachMedia(video);
    this.#timer = setInterval(() => this.#sample(), SAMPLE_MS);
  }

  get stallsMs() {
    return this.stalls.reduce((sum, stall) => sum + stall.ms, 0);
  }

  get bufferedUntilS() {
    const { buffered, currentTime } = this.#video;
    for (let index = 0; index < buffered.length; index += 1)
      if (buffered.start(index) <= currentTime + 0.1 && buffered.end(index) > currentTime) return buffered.end(index);
    return this.#video.currentTime;
  }

  stop() {
    clearInterval(this.#timer);
    this.#hls.destroy();
  }

  #recordSegment({ frag, payload }) {
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
    if (this.segments.length < SEGMENTS_RECORDED_MAX) this.segments.push(segment);
    if (track === 'video' && pathway !== this.pathway) {
      if (this.pathway !== null)
        this.#recordFailover({ from: this.pathway, to: pathway, startS: frag.start, atMs: segment.atMs });
      this.pathway = pathway;
    }
    this.#on.segment(segment);
  }

  #recordFailover({ from, to, startS, atMs }) {
    const reason = this.#lastError?.pathway === from ? this.#lastError.reason : 'steered';
    const failover = { from, to, startS, atMs, reason };
    this.failovers.push(failover);
    this.#on.failover(failover);
  }

  #recordError(data) {
    // A request of another track that was aborted because its pathway was demoted is not a failure.
    if (data.details === window.Hls.ErrorDetails.INTERNAL_ABORTED && !data.fatal) return;
    const url = data.frag?.url ?? data.url ?? data.context?.url ?? null;
    const pathway = url === null ? null : this.#pathwayOf(url);
    if (data.type === window.Hls.ErrorTypes.NETWORK_ERROR && pathway !== null) {
      this.#lastError = { pathway, reason: reasonOf(data) };
      this.#demote(pathway);
      if (data.frag !== undefined && typeof data.frag.sn === 'number') {
        const lost = { pathway, startS: data.frag.start, durationS: data.frag.duration, reason: reasonOf(data) };
        if (this.lost.length < SEGMENTS_RECORDED_MAX) this.lost.push(lost);
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
   * Moves the failed pathway to the end. By default hls.js tries the other renditions on the same appliance first, and waits for
   * the timeout at each of them if the appliance hangs: with 10 s of buffer, a title with muxed audio stalled for 8.2 s.
   */
  #demote(pathway) {
    const order = this.#hls.pathwayPriority ?? this.#hls.pathways;
    if (order.length > 1 && order[0] === pathway) this.#hls.pathwayPriority = [...order.slice(1), pathway];
  }

  /** Counts the time in which the position should advance but does not as a stall. */
  #sample() {
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
    this.#on.sample();
  }

  #pathwayOf(url) {
    return this.#bases.find(({ base }) => url.startsWith(new URL(base).origin + '/'))?.id ?? new URL(url).host;
  }
}

/**
 * hls.js 1.7.4 attributes every failed segment to the current pathway. Audio and video of an appliance that hangs fail one after
 * the other, so that the second failure would penalise the pathway that has just taken over for five minutes. This controller
 * ignores failures of a pathway that is no longer current.
 */
function steeringControllerFor(pathwayOf) {
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
