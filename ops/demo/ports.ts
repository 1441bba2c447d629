// Ports of one demo, chosen before anything listens. Between the choice and the moment when a child binds its port, nobody
// holds it; so the demo keeps the UDP port of the same number for as long as it runs, and another demo takes that for a
// no. The kernel gives the claim back however the demo ends.

import { createSocket, type Socket } from 'node:dgram';
import { createServer, type AddressInfo, type Server } from 'node:net';
import { Fault } from '../../protocol/faults.ts';
import { APPLIANCES, SERVICE_HOST, type ApplianceId, type DemoPorts } from './layout.ts';

const STEERING_PORT = 8400;
const FILL_PORT = 8500;
/** Free to listen at and claimed by another is rare: the kernel picks among tens of thousands. */
const TRIES_MAX = 10;

export interface PortsSpec {
  /** Port of steering and the page; null takes the usual one where it is free. */
  readonly port: number | null;
  /** `usual`: 8400 and 8500 where they are free, so that other verbs find them by default. */
  readonly ports: 'usual' | 'any';
}

export interface Claims {
  readonly ports: DemoPorts;
  release(): void;
}

/** Throws `config_invalid` where the port asked for is taken, or none is free. */
export async function choosePorts(spec: PortsSpec): Promise<Claims> {
  const claims: Socket[] = [];
  const release = (): void => {
    for (const claim of claims.splice(0)) claim.close();
  };
  // All listened at until the last is known, so that none is given twice.
  const held: Server[] = [];
  const take = async (host: string, wanted: number): Promise<number | null> => {
    const server = await listen(host, wanted);
    if (server === null) return null;
    held.push(server);
    const { port } = server.address() as AddressInfo;
    const claim = await bind(host, port);
    if (claim === null) return null;
    claims.push(claim);
    return port;
  };
  const free = async (host: string): Promise<number> => {
    for (let tries = 0; tries < TRIES_MAX; tries += 1) {
      const port = await take(host, 0);
      if (port !== null) return port;
    }
    throw new Fault('config_invalid', `no port is free at ${host}: the demo needs 127.0.0.1 to 127.0.0.4`);
  };
  const usual = async (port: number): Promise<number> =>
    (spec.ports === 'usual' ? await take(SERVICE_HOST, port) : null) ?? free(SERVICE_HOST);
  try {
    const asked = spec.port === null ? null : await take(SERVICE_HOST, spec.port);
    if (spec.port !== null && asked === null)
      throw new Fault('config_invalid', `--port ${spec.port} is taken on ${SERVICE_HOST}; choose another, or none`);
    const steering = asked ?? (await usual(STEERING_PORT));
    const fill = await usual(FILL_PORT);
    const origin = await free(SERVICE_HOST);
    const appliances: Partial<Record<ApplianceId, { video: number; admin: number }>> = {};
    for (const { id, host } of APPLIANCES)
      appliances[id] = { video: await free(host), admin: await free(SERVICE_HOST) };
    return { ports: { origin, fill, steering, appliances: appliances as DemoPorts['appliances'] }, release };
  } catch (error) {
    release();
    throw error;
  } finally {
    for (const server of held) server.close();
  }
}

/** Null where the port is taken. */
function listen(host: string, port: number): Promise<Server | null> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once('error', () => resolve(null));
    server.listen({ host, port, exclusive: true }, () => resolve(server));
  });
}

/** Null where another demo has claimed it. */
function bind(host: string, port: number): Promise<Socket | null> {
  const socket = createSocket('udp4').unref();
  return new Promise((resolve) => {
    socket.once('error', () => {
      socket.close();
      resolve(null);
    });
    socket.bind({ address: host, port, exclusive: true }, () => resolve(socket));
  });
}
