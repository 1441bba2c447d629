// `larder steering run`: only the flags are read here; everything else loads lazily.

import { addFlags, readFlags, type Verb } from '../runtime/command.ts';
import { STEERING_TABLE } from './config.ts';

export const verb: Verb = {
  build: (command) => {
    addFlags(command, STEERING_TABLE, 'file')
      .addHelpText(
        'after',
        `
Examples:
  larder steering run --origin http://origin.example --map map.json
  larder steering run -c steering.yaml --listen 127.0.0.1:8400

SIGHUP reads the map and the positions of addresses again.
Ctrl-C or SIGTERM stops it. Players keep their pathways and appliances go on serving.`,
      )
      .action(async () => {
        const { runSteering } = await import('./main.ts');
        await runSteering(readFlags(command, STEERING_TABLE));
      });
  },
};
