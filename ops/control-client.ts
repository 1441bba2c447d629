// The client with which verbs call the control APIs of steering and fill: typed requests, the operator's token, and faults that
// name the flag to correct or the command that starts the service.

import type { z } from 'zod';
import { Fault, isFault } from '../protocol/faults.ts';
import { call, type Call } from '../runtime/client.ts';
import { operatorToken, type CLIENT_TABLE } from '../runtime/command.ts';
import { flagName, type Values } from '../runtime/config.ts';

type ClientSettings = Values<typeof CLIENT_TABLE>;
type ServiceName = 'steering' | 'fill';

/** Sends one request to a service and validates the response. */
type ControlCall = <S extends z.ZodType>(
  path: string,
  answer: S,
  options?: Pick<Call<S>, 'method' | 'body' | 'signal' | 'timeoutMs'>,
) => Promise<z.infer<S>>;

export type ControlClient = Readonly<Record<ServiceName, ControlCall>>;

const START_COMMANDS = {
  steering: (host: string) => `larder steering run --listen ${host}`,
  fill: (host: string) => `larder fill serve --listen ${host}`,
} as const;

export function createControlClient(settings: ClientSettings): ControlClient {
  const token = operatorToken(settings);
  return { steering: callerFor('steering', settings, token), fill: callerFor('fill', settings, token) };
}

function callerFor(service: ServiceName, settings: ClientSettings, token: string | null): ControlCall {
  return async (path, answer, options = {}) => {
    try {
      return await call({ url: settings[service] + path, token, answer, ...options });
    } catch (error) {
      throw withRemedy(error, service, settings);
    }
  };
}

/** Adds what this command line can do about a fault: start the service, obtain a token, or correct a flag. */
function withRemedy(error: unknown, service: ServiceName, settings: ClientSettings): unknown {
  if (!isFault(error)) return error;
  if (error.code === 'unreachable') {
    const { host } = new URL(settings[service]);
    return new Fault(
      'unreachable',
      `${error.message}\n  Start ${service}:           ${START_COMMANDS[service](host)}\n  or say where it is:${' '.repeat(Math.max(1, service.length - 2))}--${service} URL (LARDER_${service.toUpperCase()})`,
      { cause: error },
    );
  }
  if (error.code === 'token_missing' && settings.token === null) {
    return new Fault(
      'token_missing',
      `${service} at ${settings[service]} asks for a token; --token was not given and ${settings.fleetKey} does not exist here`,
      { cause: error },
    );
  }
  return asUsageError(error, settings);
}

/** Command-line arguments by the request field that carries them. Every other field is a flag of the same name. */
const ARGUMENTS: Readonly<Record<string, string>> = { url: 'URL', title: 'TITLE', id: 'ID' };

/** A service that rejects a field rejects a flag or an argument of this command line, which is a usage error. */
function asUsageError(fault: Fault, settings: ClientSettings): Fault {
  const { field } = fault.detail;
  if (typeof field !== 'string' || !['body_invalid', 'request_malformed'].includes(fault.code)) return fault;
  const key = field.split('.')[1]?.replace(/Ms$/, '') ?? '';
  const word = Object.hasOwn(settings, key) ? flagName(key) : ARGUMENTS[key];
  if (word === undefined) return fault;
  return new Fault('config_invalid', fault.message.replace(field, word), { cause: fault, detail: { field: word } });
}
