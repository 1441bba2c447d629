// Logging: one JSON line per event on stderr. Stdout is reserved for the output of verbs.

import { pino, type Logger } from 'pino';

export type Log = Logger;

/** Writes synchronously, because a buffered destination loses the last lines on `kill -9`. */
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
