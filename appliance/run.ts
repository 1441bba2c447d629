// `larder appliance run`: validates the settings, then supervises until a signal.

import type { Command } from 'commander';
import { isAbsolute, resolve } from 'node:path';
import { addFlags, readFlags, type Verb } from '../runtime/command.ts';
import { createLog } from '../runtime/log.ts';
import { dieOnDefect } from '../runtime/process.ts';
import { APPLIANCE_TABLE, validateConfig, type ApplianceConfig } from './config.ts';
import { supervise } from './supervisor.ts';

const EXAMPLES = `
Examples:
  Stand-alone, before any HTTP origin:
    $ larder appliance run --listen :8080 --origin http://origin.example \\
        --store /srv/larder --store-bytes 500GB

  With TLS; after a renewal, send it SIGHUP:
    $ larder appliance run --listen :443 \\
        --tls-cert /etc/larder/chain.pem --tls-key /etc/larder/key.pem \\
        --origin http://origin.example --store /srv/larder --store-bytes 500GB

  In a fleet:
    $ larder appliance run --id fra-1 --site fra --listen :8080 \\
        --advertise http://fra-1.cdn.example:8080 --origin http://origin.example \\
        --store /disk1 --store /disk2 --store-bytes 20TB --state /var/lib/larder \\
        --steering http://steering.example:8400 --fill http://fill.example:8500 \\
        --token larder_appliance_fra-1_…`;

export const verb: Verb = {
  build(command: Command): void {
    addFlags(command, APPLIANCE_TABLE, 'file').addHelpText('after', EXAMPLES);
    command.action(async () => {
      const config = absolutePaths(readFlags(command, APPLIANCE_TABLE));
      validateConfig(config);
      const log = createLog('supervisor', { appliance: config.id });
      dieOnDefect(log);
      await supervise(config, log);
    });
  },
};

/** Children run in the state directory, which keeps the paths of its Unix sockets short, so relative paths must be resolved here. */
function absolutePaths(config: ApplianceConfig): ApplianceConfig {
  const absolute = (path: string): string => (isAbsolute(path) ? path : resolve(path));
  return {
    ...config,
    state: absolute(config.state),
    store: config.store.map(absolute),
    fleetKey: absolute(config.fleetKey),
    accessLog: config.accessLog === null ? null : absolute(config.accessLog),
    tlsCert: config.tlsCert === null ? null : absolute(config.tlsCert),
    tlsKey: config.tlsKey === null ? null : absolute(config.tlsKey),
  };
}
