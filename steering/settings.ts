// What decisions take from the command line of steering: the map, the positions of addresses, and a few values. SIGHUP reads the files again;
// one that cannot be read or parsed changes nothing.

import { readFileSync } from 'node:fs';
import { Fault, isFault } from '../protocol/faults.ts';
import type { Log } from '../runtime/log.ts';
import type { SteeringConfig } from './config.ts';
import { emptyFootprint, parseFootprint, type Footprint } from './footprint.ts';
import { noGeoIp, readGeoIp, type GeoIp } from './geoip.ts';
import type { HistorySettings } from './history/replay.ts';

interface SettingsFiles {
  readonly footprint: Footprint;
  /** Null without a map. */
  readonly mapText: string | null;
  readonly geoip: GeoIp;
}

export class SteeringSettings implements HistorySettings {
  readonly #config: SteeringConfig;
  readonly #log: Log;
  #files: SettingsFiles;
  #reloading: Promise<void> = Promise.resolve();

  private constructor(config: SteeringConfig, log: Log, files: SettingsFiles) {
    this.#config = config;
    this.#log = log;
    this.#files = files;
  }

  /** Throws `config_invalid` or `map_invalid`. */
  static async read(config: SteeringConfig, log: Log): Promise<SteeringSettings> {
    const files = await readFiles(config);
    warnOfUnknownDefault(config.defaultSite, files.footprint, log);
    return new SteeringSettings(config, log, files);
  }

  /** One after the other, so that the last one counts. */
  reload(): Promise<void> {
    this.#reloading = this.#reloading.then(() => this.#reload());
    return this.#reloading;
  }

  async #reload(): Promise<void> {
    try {
      this.#files = await readFiles(this.#config);
      const { footprint } = this.#files;
      this.#log.info({ zones: footprint.zones.size }, 'the map has been read again');
      warnOfUnknownDefault(this.#config.defaultSite, footprint, this.#log);
    } catch (error) {
      const reason = isFault(error) ? error.message : (error as Error).message;
      this.#log.error({ reason }, 'the map is not reloaded, the former one stays in force');
    }
  }

  get footprint(): Footprint {
    return this.#files.footprint;
  }

  get mapText(): string | null {
    return this.#files.mapText;
  }

  get geoip(): GeoIp {
    return this.#files.geoip;
  }

  get defaultSite(): string | null {
    return this.#config.defaultSite;
  }

  get originBase(): string {
    return this.#config.origin;
  }

  get ttlMs(): number {
    return this.#config.ttl;
  }
}

async function readFiles({ map, geoip }: SteeringConfig): Promise<SettingsFiles> {
  return { ...readMap(map), geoip: geoip === null ? noGeoIp : await readGeoIp(geoip) };
}

function readMap(file: string | null): Pick<SettingsFiles, 'footprint' | 'mapText'> {
  if (file === null) return { footprint: emptyFootprint, mapText: null };
  let mapText: string;
  try {
    mapText = readFileSync(file, 'utf8');
  } catch (error) {
    throw new Fault('config_invalid', `--map ${file} cannot be read: ${(error as Error).message}`, { cause: error });
  }
  return { footprint: parseFootprint(mapText, file), mapText };
}

/** A warning only, because the site's first appliance may join after steering started. */
function warnOfUnknownDefault(site: string | null, { zones }: Footprint, log: Log): void {
  if (site !== null && zones.size > 0 && !zones.has(site))
    log.warn({ site }, '--default-site is not a zone of the map');
}
