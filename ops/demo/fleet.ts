// The demo fleet: origin, fill, steering and three appliances as real processes on loopback addresses. Everything that they write
// is in one temporary directory. Closing the fleet leaves no process, port or file behind.

import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fleet as fleetSchema, type FleetAppliance } from '../../protocol/decision.ts';
import { Fault } from '../../protocol/faults.ts';
import { ensureFleetKey, issueToken } from '../../runtime/auth.ts';
import { packageRoot } from '../../runtime/paths.ts';
import { createControlClient, type ControlClient } from '../control-client.ts';
import { poll } from '../poll.ts';
import {
  APPLIANCES,
  fleetKeyFile,
  mapFile,
  prefixMap,
  serviceCommands,
  SERVICE_HOST,
  urlOf,
  type ApplianceId,
  type DemoPorts,
} from './layout.ts';
import { reservePorts, type PortReservation, type PortChoice } from './ports.ts';
import { ReaperClient } from './reaper-client.ts';
import { ServiceProcess } from './service-process.ts';

const ALIVE_TIMEOUT_MS = 15_000;
const POLL_MS = 100;

export interface FleetSpec extends PortChoice {
  readonly fillRate: string | null;
  /** Keeps the directory, with state and logs, after the fleet is closed. */
  readonly keep: boolean;
}

export class DemoFleet {
  readonly directory: string;
  readonly media: string;
  readonly ports: DemoPorts;
  readonly fleetKey: Buffer;
  readonly client: ControlClient;
  readonly urls: { readonly origin: string; readonly fill: string; readonly steering: string };
  readonly #processes: ReadonlyMap<string, ServiceProcess>;
  readonly #reaper: ReaperClient;
  readonly #portReservation: PortReservation;
  readonly #keep: boolean;
  #closing: Promise<void> | null = null;

  private constructor(parts: {
    directory: string;
    media: string;
    reservation: PortReservation;
    spec: FleetSpec;
    reaper: ReaperClient;
  }) {
    const { directory, media, reservation } = parts;
    const { ports } = reservation;
    this.directory = directory;
    this.media = media;
    this.ports = ports;
    this.#reaper = parts.reaper;
    this.#portReservation = reservation;
    this.#keep = parts.spec.keep;
    this.fleetKey = ensureFleetKey(fleetKeyFile(directory));
    this.urls = {
      origin: urlOf(SERVICE_HOST, ports.origin),
      fill: urlOf(SERVICE_HOST, ports.fill),
      steering: urlOf(SERVICE_HOST, ports.steering),
    };
    const token = issueToken(this.fleetKey, { role: 'operator', id: 'operator' });
    this.client = createControlClient({ ...this.urls, token, fleetKey: fleetKeyFile(directory), json: false });
    const larder = join(packageRoot, 'dist', 'larder.js');
    const env = environmentFor(directory);
    const commands = serviceCommands({ directory, media, ports, fillRate: parts.spec.fillRate });
    this.#processes = new Map(
      Object.entries(commands).map(([name, command]) => [
        name,
        new ServiceProcess(
          { ...command, env, logFile: join(directory, 'logs', `${name}.log`) },
          { larder, reaper: this.#reaper, token },
        ),
      ]),
    );
  }

  /** Creates the directory, the fleet key and the prefix map, and reserves the ports. Starts no service. */
  static async prepare(spec: FleetSpec): Promise<DemoFleet> {
    const media = join(packageRoot, 'ops', 'media', 'titles');
    if (!existsSync(media)) throw new Fault('config_invalid', `the sample titles are missing: ${media} does not exist`);
    const reservation = await reservePorts(spec);
    const directory = mkdtempSync(join(tmpdir(), 'larder-demo-'));
    const reaper = new ReaperClient();
    if (!spec.keep) reaper.deleteAtEnd(directory);
    mkdirSync(join(directory, 'logs'));
    writeFileSync(mapFile(directory), prefixMap());
    return new DemoFleet({ directory, media, reservation, spec, reaper });
  }

  process(name: string): ServiceProcess {
    const found = this.#processes.get(name);
    if (found === undefined) throw new Fault('not_found', `the demo runs no "${name}"`);
    return found;
  }

  get processes(): readonly ServiceProcess[] {
    return [...this.#processes.values()];
  }

  videoUrl(id: ApplianceId): string {
    return urlOf(APPLIANCES.find((row) => row.id === id)!.host, this.ports.appliances[id].video);
  }

  /**
   * Starts the control services before the appliances, so that no first heartbeat has to be repeated. Resolves once every service
   * is ready; `waitUntilAlive` waits until steering sends plays to an appliance.
   */
  async start(): Promise<void> {
    await this.#startAll(['origin', 'fill', 'steering']);
    await this.#startAll(APPLIANCES.map((row) => row.id));
  }

  /** Waits for every start even if one fails, so that no process comes up while the others are being stopped. */
  async #startAll(names: readonly string[]): Promise<void> {
    const started = await Promise.allSettled(names.map((name) => this.process(name).start()));
    const failed = started.find((result) => result.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  /** Waits until steering sends plays to this appliance. Throws after a timeout. */
  async waitUntilAlive(id: string): Promise<FleetAppliance> {
    const alive = await poll(
      async () => {
        const { appliances } = await this.client.steering('/v1/fleet', fleetSchema);
        const row = appliances.find((candidate) => candidate.id === id);
        return row !== undefined && row.liveness === 'alive' && row.state !== 'starting' ? row : null;
      },
      { everyMs: POLL_MS, signal: AbortSignal.timeout(ALIVE_TIMEOUT_MS) },
    );
    if (alive !== null) return alive;
    throw new Fault(
      'internal',
      `steering has not seen ${id} alive within ${ALIVE_TIMEOUT_MS / 1000} s; the end of its log:\n${this.process(id).logTail()}`,
    );
  }

  /** Stops every service and deletes the directory. May be called more than once. */
  close(): Promise<void> {
    this.#closing ??= this.#shutDown();
    return this.#closing;
  }

  async #shutDown(): Promise<void> {
    await Promise.all(this.processes.map((child) => child.stop()));
    this.#portReservation.release();
    if (!this.#keep) rmSync(this.directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    this.#reaper.close();
  }
}

/** Removes the LARDER_ settings of this shell from the environment of the services. */
function environmentFor(directory: string): Record<string, string> {
  const own = Object.entries(process.env).filter(([name]) => !name.startsWith('LARDER_'));
  return { ...Object.fromEntries(own.map(([name, value]) => [name, value ?? ''])), LARDER_HOME: directory };
}
