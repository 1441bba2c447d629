// Ports of one demo, reserved before anything listens. Between the reservation and the moment when a child process binds its TCP
// port, that port is free. The demo therefore holds the UDP port of the same number for as long as it runs, and another demo
// regards the port as taken. The kernel releases it however the demo ends.

import { createSocket, type Socket } from 'node:dgram';
import { createServer, type AddressInfo, type Server } from 'node:net';
import { Fault } from '../../protocol/faults.ts';
import { APPLIANCES, SERVICE_HOST, type ApplianceId, type DemoPorts } from './layout.ts';

const STEERING_PORT = 8400;
const FILL_PORT = 8500;
/** A port that is free for TCP but reserved by another demo is rare: the kernel picks from tens of thousands. */
const ATTEMPTS_MAX = 10;

export interface PortChoice {
  /** Port of steering and the page; null means the default port if it is free. */
  readonly port: number | null;
  /** `usual` prefers 8400 and 8500, the defaults of other verbs. */
  readonly ports: 'usual' | 'any';
}

export interface PortReservation {
  readonly ports: DemoPorts;
  release(): void;
}

/** Throws `config_invalid` if the requested port is taken, or if none is free. */
export async function reservePorts(spec: PortChoice): Promise<PortReservation> {
  const reserved: Socket[] = [];
  const release = (): void => {
    for (const socket of reserved.splice(0)) socket.close();
  };
  // Every port is listened on until the last is chosen, so that none is chosen twice.
  const held: Server[] = [];
  const reserve = async (host: string, wanted: number): Promise<number | null> => {
    const server = await listen(host, wanted);
    if (server === null) return null;
    held.push(server);
    const { port } = server.address() as AddressInfo;
    const socket = await bind(host, port);
    if (socket === null) return null;
    reserved.push(socket);
    return port;
  };
  const reserveAny = async (host: string): Promise<number> => {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
      const port = await reserve(host, 0);
      if (port !== null) return port;
    }
    throw new Fault('config_invalid', `no port is free at ${host}: the demo needs 127.0.0.1 to 127.0.0.4`);
  };
  const reserveUsual = async (port: number): Promise<number> =>
    (spec.ports === 'usual' ? await reserve(SERVICE_HOST, port) : null) ?? reserveAny(SERVICE_HOST);
  try {
    const requested = spec.port === null ? null : await reserve(SERVICE_HOST, spec.port);
    if (spec.port !== null && requested === null)
      throw new Fault('config_invalid', `--port ${spec.port} is taken on ${SERVICE_HOST}; choose another, or none`);
    const steering = requested ?? (await reserveUsual(STEERING_PORT));
    const fill = await reserveUsual(FILL_PORT);
    const origin = await reserveAny(SERVICE_HOST);
    const appliances: Partial<Record<ApplianceId, { video: number; admin: number }>> = {};
    for (const { id, host } of APPLIANCES)
      appliances[id] = { video: await reserveAny(host), admin: await reserveAny(SERVICE_HOST) };
    return { ports: { origin, fill, steering, appliances: appliances as DemoPorts['appliances'] }, release };
  } catch (error) {
    release();
    throw error;
  } finally {
    for (const server of held) server.close();
  }
}

/** Resolves to null if the port is taken. */
function listen(host: string, port: number): Promise<Server | null> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once('error', () => resolve(null));
    server.listen({ host, port, exclusive: true }, () => resolve(server));
  });
}

/** Resolves to null if another demo has reserved the port. */
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
