// A small player, real where it matters here: it asks steering for a title, reads the steered playlist, fetches playlists,
// keys and segments pathway by pathway in steering's order, and moves on when one refuses, fails or stays silent for
// three seconds. It shows no picture; instead every byte is compared with the file at the origin.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { LRUCache } from 'lru-cache';
import { Agent, request } from 'undici';
import { splitSession } from '../../protocol/ids.ts';
import { reasonOf } from '../../runtime/client.ts';
import { parseMaster, parseMedia, type MasterPlaylist, type MediaPlaylist, type Piece } from './playlist.ts';

export const PATIENCE_MS = 3_000;
const STEERING_TTL_MS = 30_000;
const FILES_KEPT_BYTES = 64 * 2 ** 20;
const BODY_BYTES_MAX = 32 * 2 ** 20;
const CONNECTIONS_MAX = 6;

export interface PlaySpec {
  readonly steering: string;
  readonly title: string;
  /** Directory whose files the origin serves; bytes are compared with them. */
  readonly root: string;
  /** Address the player comes from, by which steering knows its site. */
  readonly from: string;
  readonly quality: 'lowest' | 'highest';
  /** Of each rendition; all of them where absent. */
  readonly segmentsMax?: number;
  /** Asks the steering server again this often; its TTL where absent. */
  readonly steeringEveryMs?: number;
  /** Called while the request for a segment is under way; awaited before the next. */
  readonly during?: (segment: number, pathway: string) => Promise<void>;
}

export interface Failover {
  readonly segment: number;
  readonly from: string;
  readonly to: string | null;
  readonly reason: string;
  /** How long the viewer waited for the pathway that failed. */
  readonly lostMs: number;
}

export interface PlayReport {
  /** Best first, as steering ranked them. */
  readonly pathways: readonly string[];
  readonly segments: number;
  readonly bytes: number;
  readonly bytesByPathway: Readonly<Record<string, number>>;
  readonly failovers: readonly Failover[];
  /** Times that the steering server did not answer; the play goes on with the order it has. */
  readonly steeringLost: number;
  /** Pieces whose bytes differ from the origin's file, or that no pathway delivered. */
  readonly wrong: readonly string[];
  readonly lastsMs: number;
}

/** Throws only where the play cannot begin. */
export async function play(spec: PlaySpec): Promise<PlayReport> {
  const agent = new Agent({
    localAddress: spec.from,
    connections: CONNECTIONS_MAX,
    connectTimeout: PATIENCE_MS,
    headersTimeout: PATIENCE_MS,
    bodyTimeout: PATIENCE_MS,
  });
  try {
    const url = `${spec.steering}/v1/titles/${encodeURIComponent(spec.title)}/master.m3u8`;
    const master = parseMaster((await fetchPiece(agent, wholeOf(url))).toString('utf8'), url);
    return await new Player(spec, agent, master).run();
  } finally {
    await agent.destroy();
  }
}

class Player {
  readonly #spec: PlaySpec;
  readonly #agent: Agent;
  readonly #master: MasterPlaylist;
  readonly #variant: number;
  readonly #failed = new Set<string>();
  readonly #playlists = new Map<string, MediaPlaylist>();
  readonly #files: LRUCache<string, Buffer>;
  readonly #failovers: Failover[] = [];
  readonly #wrong: string[] = [];
  readonly #bytesByPathway: Record<string, number> = {};
  #order: readonly string[];
  #steeringLost = 0;
  #steeredAtMs = Number.NEGATIVE_INFINITY;
  #steeringTtlMs = STEERING_TTL_MS;
  #segments = 0;

  constructor(spec: PlaySpec, agent: Agent, master: MasterPlaylist) {
    this.#spec = spec;
    this.#agent = agent;
    this.#master = master;
    this.#files = new LRUCache({ maxSize: FILES_KEPT_BYTES, sizeCalculation: (file) => Math.max(1, file.length) });
    this.#order = [...new Set(master.variants.map((variant) => variant.pathway))];
    const rates = this.#variantsOf(this.#order[0]!).map((variant) => variant.bandwidth);
    this.#variant = rates.indexOf(spec.quality === 'lowest' ? Math.min(...rates) : Math.max(...rates));
  }

  async run(): Promise<PlayReport> {
    const startedMs = performance.now();
    await this.#steer();
    const ranked = this.#order;
    const tracks = this.#trackUrls(ranked[0]!).length;
    const lengths: number[] = [];
    for (let track = 0; track < tracks; track += 1) {
      const playlist = await this.#deliver(0, track, 'heads');
      lengths.push(Math.min(playlist?.segments.length ?? 0, this.#spec.segmentsMax ?? Number.POSITIVE_INFINITY));
    }
    for (let segment = 0; segment < Math.max(...lengths); segment += 1) {
      if (performance.now() - this.#steeredAtMs >= this.#steeringTtlMs) await this.#steer();
      for (let track = 0; track < tracks; track += 1) {
        if (segment >= lengths[track]!) continue;
        const event = track === 0 ? this.#spec.during?.(segment, this.#best() ?? '') : undefined;
        await Promise.all([this.#deliver(segment, track, 'segment'), event]);
        this.#segments += 1;
      }
    }
    return {
      pathways: ranked,
      segments: this.#segments,
      bytes: Object.values(this.#bytesByPathway).reduce((sum, bytes) => sum + bytes, 0),
      bytesByPathway: this.#bytesByPathway,
      failovers: this.#failovers,
      steeringLost: this.#steeringLost,
      wrong: this.#wrong,
      lastsMs: performance.now() - startedMs,
    };
  }

  /** One segment of a track (or what precedes the first) from the best pathway that delivers it. */
  async #deliver(segment: number, track: number, what: 'heads' | 'segment'): Promise<MediaPlaylist | null> {
    for (;;) {
      const pathway = this.#best();
      if (pathway === null) {
        this.#wrong.push(`segment ${segment} of track ${track}: no pathway is left`);
        return null;
      }
      const askedMs = performance.now();
      try {
        const playlist = await this.#playlistOf(pathway, track);
        const pieces = what === 'heads' ? playlist.heads : [playlist.segments[segment]!];
        for (const piece of pieces) await this.#fetchAndCompare(pathway, piece);
        return playlist;
      } catch (error) {
        this.#failed.add(pathway);
        this.#failovers.push({
          segment,
          from: pathway,
          to: this.#best(),
          reason: reasonOf(error),
          lostMs: performance.now() - askedMs,
        });
      }
    }
  }

  async #playlistOf(pathway: string, track: number): Promise<MediaPlaylist> {
    const url = this.#trackUrls(pathway)[track]!;
    const known = this.#playlists.get(url);
    if (known !== undefined) return known;
    const body = await this.#fetchAndCompare(pathway, wholeOf(url));
    const playlist = parseMedia(body.toString('utf8'), url);
    this.#playlists.set(url, playlist);
    return playlist;
  }

  async #fetchAndCompare(pathway: string, piece: Piece): Promise<Buffer> {
    const body = await fetchPiece(this.#agent, piece);
    this.#bytesByPathway[pathway] = (this.#bytesByPathway[pathway] ?? 0) + body.length;
    const path = decodeURIComponent(splitSession(new URL(piece.url).pathname).path);
    const file = await this.#fileAt(path);
    const meant = piece.first === null ? file : file.subarray(piece.first, piece.last! + 1);
    if (!body.equals(meant)) this.#wrong.push(`${path} from ${pathway}: ${body.length} bytes differ from the origin's`);
    return body;
  }

  async #fileAt(path: string): Promise<Buffer> {
    let file = this.#files.get(path);
    if (file === undefined) {
      file = await readFile(join(this.#spec.root, path));
      this.#files.set(path, file);
    }
    return file;
  }

  /** Video first, then the audio and subtitles that the variant names; the same order on every pathway. */
  #trackUrls(pathway: string): string[] {
    const variant = this.#variantsOf(pathway)[this.#variant]!;
    const renditions = (['AUDIO', 'SUBTITLES'] as const).flatMap((type) => {
      const group = type === 'AUDIO' ? variant.audio : variant.subtitles;
      const members = this.#master.media.filter((media) => media.type === type && media.group === group);
      const chosen = members.find((media) => media.isDefault) ?? members[0];
      return chosen === undefined ? [] : [chosen.url];
    });
    return [variant.url, ...renditions];
  }

  #variantsOf(pathway: string) {
    return this.#master.variants.filter((variant) => variant.pathway === pathway);
  }

  #best(): string | null {
    return this.#order.find((pathway) => !this.#failed.has(pathway)) ?? null;
  }

  async #steer(): Promise<void> {
    const { steering } = this.#master;
    this.#steeredAtMs = performance.now();
    this.#steeringTtlMs = this.#spec.steeringEveryMs ?? this.#steeringTtlMs;
    if (steering === null) return;
    try {
      const url = new URL(steering.serverUri);
      url.searchParams.set('_HLS_pathway', this.#best() ?? steering.pathway);
      const list = JSON.parse((await fetchPiece(this.#agent, wholeOf(url.href))).toString('utf8')) as SteeringList;
      const known = new Set(this.#order);
      const order = list['PATHWAY-PRIORITY'].filter((pathway) => known.has(pathway));
      // A list may leave a pathway out; as a last resort it is still better than no picture.
      this.#order = [...order, ...this.#order.filter((pathway) => !order.includes(pathway))];
      this.#steeringTtlMs = this.#spec.steeringEveryMs ?? list.TTL * 1000;
    } catch {
      this.#steeringLost += 1;
    }
  }
}

interface SteeringList {
  readonly TTL: number;
  readonly 'PATHWAY-PRIORITY': readonly string[];
}

export const wholeOf = (url: string): Piece => ({ url, first: null, last: null });

/** Throws for a refusal, silence, an error status, or a body of another length than was promised. */
export async function fetchPiece(agent: Agent, piece: Piece): Promise<Buffer> {
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const response = await request(piece.url, {
    dispatcher: agent,
    signal,
    headers: piece.first === null ? {} : { range: `bytes=${piece.first}-${piece.last}` },
  });
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response.body as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) throw new Error(`${piece.url} sends more than ${BODY_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  const expected = piece.first === null ? 200 : 206;
  if (response.statusCode !== expected) throw new Error(`${piece.url} answered ${response.statusCode}`);
  const promised = response.headers['content-length'];
  if (promised !== undefined && Number(promised) !== bytes)
    throw new Error(`${piece.url} sent ${bytes} of ${String(promised)} bytes`);
  return Buffer.concat(chunks, bytes);
}
