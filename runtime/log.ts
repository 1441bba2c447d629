// One JSON line per event to stderr, so that stdout belongs to what a command prints.

import { pino, type Logger } from 'pino';

export type Log = Logger;

/** Synchronous: a buffered destination loses its last lines on `kill -9`, which are the ones that matter. */
export function createLog(role: string, fields: Record<string, string> = {}): Log {
  return pino(
    {
      level: process.env['LARDER_LOG_LEVEL'] ?? 'info',
      base: { role, pid: process.pid, ...fields },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: ['token', '*.token', 'authorization', '*.authorization'], censor: '[redacted]' },
    },
    pino.destination({ dest: 2, sync: true }),
  );
}

export const silentLog: Log = pino({ level: 'silent' });
