// Settings of the fill service. Each row is a flag, a YAML key, an environment variable and a line in REFERENCE.md.

import { join } from 'node:path';
import { homedir } from 'node:os';
import { defaultFleetKeyFile } from '../runtime/auth.ts';
import { option, type Values } from '../runtime/config.ts';

const home = (): string => process.env['LARDER_HOME'] ?? join(homedir(), '.larder');

export const FILL_TABLE = {
  listen: option.hostPort({ doc: 'Address of the control API', fallback: '127.0.0.1:8500' }),
  state: option.path({
    doc: 'Directory of catalog, demand, plans and runs',
    fallback: join(home(), 'fill'),
    placeholder: 'DIR',
  }),
  origin: option.url({ doc: 'Base URL below which every title lies' }),
  steering: option.url({ doc: 'Base URL of steering', fallback: 'http://127.0.0.1:8400' }),
  fleetKey: option.path({ doc: 'File of the fleet key; made if absent', fallback: defaultFleetKeyFile() }),
  halfLife: option.duration({ doc: 'Demand counts half after this time', fallback: '3d' }),
  importConcurrency: option.integer({
    doc: 'Assets fetched at once while a title is imported',
    fallback: '8',
    min: 1,
    max: 64,
  }),
  fillConcurrency: option.integer({
    doc: 'Assets that one appliance fetches at once in a fill',
    fallback: '8',
    min: 1,
    max: 64,
  }),
  windowJitter: option.duration({
    doc: 'A site starts at most this long after its window opens, so that not all start at once',
    fallback: '2m',
  }),
  vanishAfter: option.duration({
    doc: 'An appliance without lease and without progress for this time has failed its run',
    fallback: '60s',
  }),
  silenceAfter: option.duration({
    doc: 'An appliance with a lease, but without progress for this time, has failed its run',
    fallback: '5m',
  }),
  drainTimeout: option.duration({ doc: 'Longest wait for running requests at shutdown', fallback: '10s' }),
} as const;

export type FillConfig = Values<typeof FILL_TABLE>;
