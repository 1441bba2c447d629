// The demo's fleet: origin, fill, steering and three appliances as real processes on loopback addresses, everything they
// write in one temporary directory, and an end that leaves no process, no port and no file.

import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fleet as fleetSchema, type FleetAppliance } from '../../protocol/decision.ts';
import { Fault } from '../../protocol/faults.ts';
import { ensureFleetKey, issueToken } from '../../runtime/auth.ts';
import { packageRoot } from '../../runtime/paths.ts';
import { poll, servicesOf, type Services } from '../ask.ts';
import {
  APPLIANCES,
  fleetKeyFile,
  mapFile,
  prefixMap,
  processPlans,
  SERVICE_HOST,
  urlOf,
  type ApplianceId,
  type DemoPorts,
} from './layout.ts';
import { choosePorts, type Claims, type PortsSpec } from './ports.ts';
import { DemoProcess, Warden } from './service-process.ts';

const ALIVE_MS = 15_000;
const LOOK_MS = 100;

export interface FleetSpec extends PortsSpec {
  readonly fillRate: string | null;
  /** Leave state and logs behind. */
  readonly keep: boolean;
}

export class DemoFleet {
  readonly directory: string;
  readonly media: string;
  readonly ports: DemoPorts;
  readonly fleetKey: Buffer;
  readonly services: Services;
  readonly urls: { readonly origin: string; readonly fill: string; readonly steering: string };
  readonly #processes: ReadonlyMap<string, DemoProcess>;
  readonly #warden: Warden;
  readonly #claims: Claims;
  readonly #keep: boolean;
  #closing: Promise<void> | null = null;

  private constructor(parts: { directory: string; media: string; claims: Claims; spec: FleetSpec; warden: Warden }) {
    const { directory, media, claims } = parts;
    const { ports } = claims;
    this.directory = directory;
    this.media = media;
    this.ports = ports;
    this.#warden = parts.warden;
    this.#claims = claims;
    this.#keep = parts.spec.keep;
    this.fleetKey = ensureFleetKey(fleetKeyFile(directory));
    this.urls = {
      origin: urlOf(SERVICE_HOST, ports.origin),
      fill: urlOf(SERVICE_HOST, ports.fill),
      steering: urlOf(SERVICE_HOST, ports.steering),
    };
    const token = issueToken(this.fleetKey, { role: 'operator', id: 'operator' });
    this.services = servicesOf({ ...this.urls, token, fleetKey: fleetKeyFile(directory), json: false });
    const larder = join(packageRoot, 'dist', 'larder.js');
    const env = environmentFor(directory);
    const plans = processPlans({ directory, media, ports, fillRate: parts.spec.fillRate });
    this.#processes = new Map(
      Object.entries(plans).map(([name, plan]) => [
        name,
        new DemoProcess(
          { ...plan, env, logFile: join(directory, 'logs', `${name}.log`) },
          { larder, warden: this.#warden, token },
        ),
      ]),
    );
  }

  /** Directory, key, map and ports; nothing runs yet. */
  static async prepare(spec: FleetSpec): Promise<DemoFleet> {
    const media = join(packageRoot, 'ops', 'media', 'titles');
    if (!existsSync(media)) throw new Fault('config_invalid', `the sample titles are missing: ${media} does not exist`);
    const claims = await choosePorts(spec);
    const directory = mkdtempSync(join(tmpdir(), 'larder-demo-'));
    const warden = new Warden();
    if (!spec.keep) warden.say('directory', directory);
    mkdirSync(join(directory, 'logs'));
    writeFileSync(mapFile(directory), prefixMap());
    return new DemoFleet({ directory, media, claims, spec, warden });
  }

  process(name: string): DemoProcess {
    const found = this.#processes.get(name);
    if (found === undefined) throw new Fault('not_found', `the demo runs no "${name}"`);
    return found;
  }

  get processes(): readonly DemoProcess[] {
    return [...this.#processes.values()];
  }

  videoUrl(id: ApplianceId): string {
    return urlOf(APPLIANCES.find((row) => row.id === id)!.host, this.ports.appliances[id].video);
  }

  /**
   * Services first, so that no appliance has to try its first heartbeat twice. Resolves when every process is ready;
   * `untilAlive` waits for an appliance to be given plays.
   */
  async start(): Promise<void> {
    await this.#startAll(['origin', 'fill', 'steering']);
    await this.#startAll(APPLIANCES.map((row) => row.id));
  }

  /** Waits for each, also after one has failed: a process must not come up while the rest is being ended. */
  async #startAll(names: readonly string[]): Promise<void> {
    const started = await Promise.allSettled(names.map((name) => this.process(name).start()));
    const failed = started.find((result) => result.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  /** Waits, bounded, until steering would send players to this appliance. */
  async untilAlive(id: string): Promise<FleetAppliance> {
    const found = await poll(
      async () => {
        const { appliances } = await this.services.steering('/v1/fleet', fleetSchema);
        const row = appliances.find((candidate) => candidate.id === id);
        return row !== undefined && row.liveness === 'alive' && row.state !== 'starting' ? row : null;
      },
      { everyMs: LOOK_MS, signal: AbortSignal.timeout(ALIVE_MS) },
    );
    if (found !== null) return found;
    throw new Fault(
      'internal',
      `steering has not seen ${id} alive within ${ALIVE_MS / 1000} s; the end of its log:\n${this.process(id).logTail()}`,
    );
  }

  /** Safe to call more than once. */
  close(): Promise<void> {
    this.#closing ??= this.#end();
    return this.#closing;
  }

  async #end(): Promise<void> {
    await Promise.all(this.processes.map((child) => child.stop()));
    this.#claims.release();
    if (!this.#keep) rmSync(this.directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    this.#warden.dismiss();
  }
}

/** The demo's children see nothing of a LARDER_ setting that this shell happens to have. */
function environmentFor(directory: string): Record<string, string> {
  const own = Object.entries(process.env).filter(([name]) => !name.startsWith('LARDER_'));
  return { ...Object.fromEntries(own.map(([name, value]) => [name, value ?? ''])), LARDER_HOME: directory };
}
