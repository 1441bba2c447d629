// A stage with two sites and two titles, and the callers that its tests share.

import { connect } from 'node:net';
import { playAnswer, type PlayAnswer } from '../../protocol/decision.ts';
import type { FaultBody } from '../../protocol/faults.ts';
import type { Heartbeat } from '../../protocol/heartbeat.ts';
import { parseFootprint } from '../footprint.ts';
import { aBeat, ask, aTitle, openStage, tokenOf, type Answer, type Stage, type StageGiven } from './stage.ts';

const MPD = '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>';
/** HLS alone. */
const harbor = aTitle({ id: 'harbor' });
/** HLS and DASH. */
const meadow = aTitle({
  id: 'meadow',
  manifests: [...aTitle({ id: 'meadow' }).manifests, { dialect: 'dash', path: '/meadow/manifest.mpd', text: MPD }],
});

/** Clients bound to 127.1.0.0/16 are in the north, to 127.2.0.0/16 in the south. */
const footprint = parseFootprint(
  JSON.stringify({
    coverageZones: {
      north: { network: ['127.1.0.0/16'], network6: ['::1/128'], coordinates: { latitude: 59, longitude: 18 } },
      south: { network: ['127.2.0.0/16'], coordinates: { latitude: 40, longitude: -4 } },
    },
  }),
  'map.json',
);

export interface Town extends Stage {
  beat(given: Partial<Heartbeat> & { readonly appliance: string }): Promise<Answer>;
  play(title?: string, from?: string): Promise<PlayAnswer>;
}

export async function openTown(given: StageGiven = {}): Promise<Town> {
  const stage = await openStage({ titles: [harbor, meadow], footprint, ...given });
  return {
    ...stage,
    beat: (beat) =>
      ask(`${stage.url}/v1/appliances/${beat.appliance}/heartbeat`, {
        method: 'POST',
        body: aBeat(beat),
        token: tokenOf('appliance', beat.appliance),
      }),
    play: async (title = 'harbor', from = '127.1.0.1') =>
      playAnswer.parse((await ask(`${stage.url}/v1/play/${title}`, { from })).json()),
  };
}

export const operator = tokenOf('operator');
export const faultOf = (answer: Answer): FaultBody['error'] => answer.json<FaultBody>().error;
export const idsOf = ({ pathways }: PlayAnswer): string[] => pathways.map(({ id }) => id);

/** Sends bytes as they are and reads until the end. */
export function raw(url: string, text: string): Promise<string> {
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
