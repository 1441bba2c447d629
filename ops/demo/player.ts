// A small HLS player for the demo. It requests a title from steering, parses the steered playlist, fetches playlists, keys and
// segments from the best pathway, and fails over to the next one if a pathway refuses, breaks off or does not respond within 3 s.
// It decodes nothing; instead it compares every byte with the file that the origin serves.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { LRUCache } from 'lru-cache';
import { Agent, request } from 'undici';
import { splitSession } from '../../protocol/ids.ts';
import { reasonOf } from '../../runtime/client.ts';
import { systemClock } from '../../runtime/clock.ts';
import {
  parseMultivariantPlaylist,
  parseMediaPlaylist,
  type MultivariantPlaylist,
  type MediaPlaylist,
  type MediaRequest,
} from './playlist.ts';

export const RESPONSE_TIMEOUT_MS = 3_000;
const STEERING_TTL_MS = 30_000;
const FILE_CACHE_BYTES = 64 * 2 ** 20;
const BODY_BYTES_MAX = 32 * 2 ** 20;
const CONNECTIONS_MAX = 6;

interface PlaySpec {
  readonly steering: string;
  readonly title: string;
  /** Directory that the origin serves, against whose files bytes are compared. */
  readonly root: string;
  /** Address from which the player connects. Steering derives its site from it. */
  readonly localAddress: string;
  readonly quality: 'lowest' | 'highest';
  /** Number of segments of each rendition to play; all of them if absent. */
  readonly segmentsMax?: number;
  /** Interval between requests to the steering server; the TTL of its response if absent. */
  readonly steeringIntervalMs?: number;
  /** Called while a segment is being requested, and awaited before the next segment. */
  readonly onSegment?: (segment: number, pathway: string) => Promise<void>;
}

interface Failover {
  readonly segment: number;
  readonly from: string;
  readonly to: string | null;
  readonly reason: string;
  /** How long the player waited for the pathway that failed. */
  readonly waitedMs: number;
}

export interface PlayReport {
  /** In the order in which steering ranked them at the start. */
  readonly pathways: readonly string[];
  readonly segments: number;
  readonly bytes: number;
  readonly bytesByPathway: Readonly<Record<string, number>>;
  readonly failovers: readonly Failover[];
  /** Requests that the steering server did not answer. The play continues with the ranking that it has. */
  readonly steeringFailures: number;
  /** Files whose bytes differ from the origin's, and segments that no pathway delivered. */
  readonly mismatches: readonly string[];
  readonly durationMs: number;
}

/** Throws only if the play cannot begin. */
export async function play(spec: PlaySpec): Promise<PlayReport> {
  const agent = new Agent({
    localAddress: spec.localAddress,
    connections: CONNECTIONS_MAX,
    connectTimeout: RESPONSE_TIMEOUT_MS,
    headersTimeout: RESPONSE_TIMEOUT_MS,
    bodyTimeout: RESPONSE_TIMEOUT_MS,
  });
  try {
    const url = `${spec.steering}/v1/titles/${encodeURIComponent(spec.title)}/master.m3u8`;
    const multivariant = parseMultivariantPlaylist((await fetchMedia(agent, wholeFile(url))).toString('utf8'), url);
    return await new Player(spec, agent, multivariant).run();
  } finally {
    await agent.destroy();
  }
}

class Player {
  readonly #spec: PlaySpec;
  readonly #agent: Agent;
  readonly #multivariant: MultivariantPlaylist;
  readonly #variant: number;
  readonly #failed = new Set<string>();
  readonly #playlists = new Map<string, MediaPlaylist>();
  readonly #files: LRUCache<string, Buffer>;
  readonly #failovers: Failover[] = [];
  readonly #mismatches: string[] = [];
  readonly #bytesByPathway: Record<string, number> = {};
  #ranking: readonly string[];
  #steeringFailures = 0;
  #rankedAtMs = Number.NEGATIVE_INFINITY;
  #steeringTtlMs = STEERING_TTL_MS;
  #segments = 0;

  constructor(spec: PlaySpec, agent: Agent, multivariant: MultivariantPlaylist) {
    this.#spec = spec;
    this.#agent = agent;
    this.#multivariant = multivariant;
    this.#files = new LRUCache({ maxSize: FILE_CACHE_BYTES, sizeCalculation: (file) => Math.max(1, file.length) });
    this.#ranking = [...new Set(multivariant.variants.map((variant) => variant.pathway))];
    const rates = this.#variantsOf(this.#ranking[0]!).map((variant) => variant.bandwidth);
    this.#variant = rates.indexOf(spec.quality === 'lowest' ? Math.min(...rates) : Math.max(...rates));
  }

  async run(): Promise<PlayReport> {
    const startedMs = systemClock.monotonic();
    await this.#updateRanking();
    const ranked = this.#ranking;
    const tracks = this.#trackUrls(ranked[0]!).length;
    const lengths: number[] = [];
    for (let track = 0; track < tracks; track += 1) {
      const playlist = await this.#fetchFromBestPathway(0, track, 'prerequisites');
      lengths.push(Math.min(playlist?.segments.length ?? 0, this.#spec.segmentsMax ?? Number.POSITIVE_INFINITY));
    }
    for (let segment = 0; segment < Math.max(...lengths); segment += 1) {
      if (systemClock.monotonic() - this.#rankedAtMs >= this.#steeringTtlMs) await this.#updateRanking();
      for (let track = 0; track < tracks; track += 1) {
        if (segment >= lengths[track]!) continue;
        const event = track === 0 ? this.#spec.onSegment?.(segment, this.#bestPathway() ?? '') : undefined;
        await Promise.all([this.#fetchFromBestPathway(segment, track, 'segment'), event]);
        this.#segments += 1;
      }
    }
    return {
      pathways: ranked,
      segments: this.#segments,
      bytes: Object.values(this.#bytesByPathway).reduce((sum, bytes) => sum + bytes, 0),
      bytesByPathway: this.#bytesByPathway,
      failovers: this.#failovers,
      steeringFailures: this.#steeringFailures,
      mismatches: this.#mismatches,
      durationMs: systemClock.monotonic() - startedMs,
    };
  }

  /** Fetches a segment of a track, or what its segments require, from the best pathway that delivers it. */
  async #fetchFromBestPathway(
    segment: number,
    track: number,
    what: 'prerequisites' | 'segment',
  ): Promise<MediaPlaylist | null> {
    for (;;) {
      const pathway = this.#bestPathway();
      if (pathway === null) {
        this.#mismatches.push(`segment ${segment} of track ${track}: no pathway is left`);
        return null;
      }
      const requestedMs = systemClock.monotonic();
      try {
        const playlist = await this.#fetchPlaylist(pathway, track);
        const requests = what === 'prerequisites' ? playlist.prerequisites : [playlist.segments[segment]!];
        for (const media of requests) await this.#fetchAndCompare(pathway, media);
        return playlist;
      } catch (error) {
        this.#failed.add(pathway);
        this.#failovers.push({
          segment,
          from: pathway,
          to: this.#bestPathway(),
          reason: reasonOf(error),
          waitedMs: systemClock.monotonic() - requestedMs,
        });
      }
    }
  }

  async #fetchPlaylist(pathway: string, track: number): Promise<MediaPlaylist> {
    const url = this.#trackUrls(pathway)[track]!;
    const cached = this.#playlists.get(url);
    if (cached !== undefined) return cached;
    const body = await this.#fetchAndCompare(pathway, wholeFile(url));
    const playlist = parseMediaPlaylist(body.toString('utf8'), url);
    this.#playlists.set(url, playlist);
    return playlist;
  }

  async #fetchAndCompare(pathway: string, media: MediaRequest): Promise<Buffer> {
    const body = await fetchMedia(this.#agent, media);
    this.#bytesByPathway[pathway] = (this.#bytesByPathway[pathway] ?? 0) + body.length;
    const path = decodeURIComponent(splitSession(new URL(media.url).pathname).path);
    const file = await this.#originFile(path);
    const expected = media.first === null ? file : file.subarray(media.first, media.last! + 1);
    if (!body.equals(expected))
      this.#mismatches.push(`${path} from ${pathway}: ${body.length} bytes differ from the origin's`);
    return body;
  }

  async #originFile(path: string): Promise<Buffer> {
    let file = this.#files.get(path);
    if (file === undefined) {
      file = await readFile(join(this.#spec.root, path));
      this.#files.set(path, file);
    }
    return file;
  }

  /** Video first, then the audio and subtitle renditions of the variant, in the same order on every pathway. */
  #trackUrls(pathway: string): string[] {
    const variant = this.#variantsOf(pathway)[this.#variant]!;
    const renditions = (['AUDIO', 'SUBTITLES'] as const).flatMap((type) => {
      const group = type === 'AUDIO' ? variant.audio : variant.subtitles;
      const members = this.#multivariant.media.filter((media) => media.type === type && media.group === group);
      const chosen = members.find((media) => media.isDefault) ?? members[0];
      return chosen === undefined ? [] : [chosen.url];
    });
    return [variant.url, ...renditions];
  }

  #variantsOf(pathway: string) {
    return this.#multivariant.variants.filter((variant) => variant.pathway === pathway);
  }

  #bestPathway(): string | null {
    return this.#ranking.find((pathway) => !this.#failed.has(pathway)) ?? null;
  }

  async #updateRanking(): Promise<void> {
    const { steering } = this.#multivariant;
    this.#rankedAtMs = systemClock.monotonic();
    this.#steeringTtlMs = this.#spec.steeringIntervalMs ?? this.#steeringTtlMs;
    if (steering === null) return;
    try {
      const url = new URL(steering.serverUri);
      url.searchParams.set('_HLS_pathway', this.#bestPathway() ?? steering.pathway);
      const list = JSON.parse(
        (await fetchMedia(this.#agent, wholeFile(url.href))).toString('utf8'),
      ) as SteeringManifest;
      const order = list['PATHWAY-PRIORITY'].filter((pathway) => this.#ranking.includes(pathway));
      // A pathway that the steering manifest omits is kept as a last resort.
      this.#ranking = [...order, ...this.#ranking.filter((pathway) => !order.includes(pathway))];
      this.#steeringTtlMs = this.#spec.steeringIntervalMs ?? list.TTL * 1000;
    } catch {
      this.#steeringFailures += 1;
    }
  }
}

interface SteeringManifest {
  readonly TTL: number;
  readonly 'PATHWAY-PRIORITY': readonly string[];
}

export const wholeFile = (url: string): MediaRequest => ({ url, first: null, last: null });

/** Throws for a connection that fails, a timeout, an unexpected status, or a body of another length than Content-Length. */
export async function fetchMedia(agent: Agent, media: MediaRequest): Promise<Buffer> {
  const signal = AbortSignal.timeout(RESPONSE_TIMEOUT_MS);
  const response = await request(media.url, {
    dispatcher: agent,
    signal,
    headers: media.first === null ? {} : { range: `bytes=${media.first}-${media.last}` },
  });
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response.body as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) throw new Error(`${media.url} sends more than ${BODY_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  const expectedStatus = media.first === null ? 200 : 206;
  if (response.statusCode !== expectedStatus) throw new Error(`${media.url} answered ${response.statusCode}`);
  const contentLength = response.headers['content-length'];
  if (contentLength !== undefined && Number(contentLength) !== bytes)
    throw new Error(`${media.url} sent ${bytes} of ${String(contentLength)} bytes`);
  return Buffer.concat(chunks, bytes);
}
