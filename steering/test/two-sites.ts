// A steering service with two sites and two titles, and the requests that its tests share.

import { connect } from 'node:net';
import { playAnswer, type PlayAnswer } from '../../protocol/decision.ts';
import type { FaultBody } from '../../protocol/faults.ts';
import type { Heartbeat } from '../../protocol/heartbeat.ts';
import { parseFootprint } from '../footprint.ts';
import {
  aHeartbeat,
  send,
  aTitle,
  openTestSteering,
  tokenOf,
  type HttpAnswer,
  type TestSteering,
  type TestSteeringOptions,
} from './harness.ts';

const MPD = '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>';
/** Has an HLS manifest only. */
const harbor = aTitle({ id: 'harbor' });
/** Has manifests in both dialects. */
const meadow = aTitle({
  id: 'meadow',
  manifests: [...aTitle({ id: 'meadow' }).manifests, { dialect: 'dash', path: '/meadow/manifest.mpd', text: MPD }],
});

/** Clients from 127.1.0.0/16 belong to site north, those from 127.2.0.0/16 to site south. */
const footprint = parseFootprint(
  JSON.stringify({
    coverageZones: {
      north: { network: ['127.1.0.0/16'], network6: ['::1/128'], coordinates: { latitude: 59, longitude: 18 } },
      south: { network: ['127.2.0.0/16'], coordinates: { latitude: 40, longitude: -4 } },
    },
  }),
  'map.json',
);

export interface TwoSites extends TestSteering {
  heartbeat(fields: Partial<Heartbeat> & { readonly appliance: string }): Promise<HttpAnswer>;
  play(title?: string, from?: string): Promise<PlayAnswer>;
}

export async function openTwoSites(options: TestSteeringOptions = {}): Promise<TwoSites> {
  const steering = await openTestSteering({ titles: [harbor, meadow], footprint, ...options });
  return {
    ...steering,
    heartbeat: (fields) =>
      send(`${steering.url}/v1/appliances/${fields.appliance}/heartbeat`, {
        method: 'POST',
        body: aHeartbeat(fields),
        token: tokenOf('appliance', fields.appliance),
      }),
    play: async (title = 'harbor', from = '127.1.0.1') =>
      playAnswer.parse((await send(`${steering.url}/v1/play/${title}`, { from })).json()),
  };
}

export const operator = tokenOf('operator');
export const faultOf = (answer: HttpAnswer): FaultBody['error'] => answer.json<FaultBody>().error;
export const pathwayIds = ({ pathways }: PlayAnswer): string[] => pathways.map(({ id }) => id);

/** Sends the text unchanged over TCP and returns everything received until the connection closes. */
export function sendRaw(url: string, text: string): Promise<string> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket = connect(Number(port), hostname, () => socket.write(text));
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString('latin1')));
    socket.on('close', () => resolve(answer));
    socket.on('error', (error: NodeJS.ErrnoException) =>
      ['EPIPE', 'ECONNRESET'].includes(error.code ?? '') ? resolve(answer) : reject(error),
    );
  });
}
