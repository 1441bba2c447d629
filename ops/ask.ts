// How a verb asks a service and how it speaks: typed calls that say what to do when nobody answers, JSON alone on stdout,
// everything for people beside it.

import type { z } from 'zod';
import { Fault, isFault } from '../protocol/faults.ts';
import { call, type Call } from '../runtime/client.ts';
import { operatorToken, type CLIENT_TABLE } from '../runtime/command.ts';
import { flagName, type Values } from '../runtime/config.ts';
import { lookOf, type Look } from './terminal.ts';

export type ClientValues = Values<typeof CLIENT_TABLE>;

export type Ask = <S extends z.ZodType>(
  path: string,
  answer: S,
  more?: Pick<Call<S>, 'method' | 'body' | 'signal' | 'timeoutMs'>,
) => Promise<z.infer<S>>;

export interface Services {
  readonly steering: Ask;
  readonly fill: Ask;
}

const STARTED_BY = {
  steering: (host: string) => `larder steering run --listen ${host}`,
  fill: (host: string) => `larder fill serve --listen ${host}`,
} as const;

export function servicesOf(values: ClientValues): Services {
  const token = operatorToken(values);
  return { steering: asker('steering', values, token), fill: asker('fill', values, token) };
}

function asker(name: 'steering' | 'fill', values: ClientValues, token: string | null): Ask {
  return async (path, answer, more = {}) => {
    try {
      return await call({ url: values[name] + path, token, answer, ...more });
    } catch (error) {
      throw withRemedy(error, name, values);
    }
  };
}

/**
 * Adds what this command line can do about it: the command that starts the service, where the token comes from, or which
 * of its own words the service refused.
 */
function withRemedy(error: unknown, name: 'steering' | 'fill', values: ClientValues): unknown {
  if (!isFault(error)) return error;
  if (error.code === 'unreachable') {
    const host = new URL(values[name]).host;
    return new Fault(
      'unreachable',
      `${error.message}\n  Start ${name}:           ${STARTED_BY[name](host)}\n  or say where it is:${' '.repeat(Math.max(1, name.length - 2))}--${name} URL (LARDER_${name.toUpperCase()})`,
      { cause: error },
    );
  }
  if (error.code === 'token_missing' && values.token === null) {
    return new Fault(
      'token_missing',
      `${name} at ${values[name]} asks for a token; --token was not given and ${values.fleetKey} does not exist here`,
      { cause: error },
    );
  }
  return inWordsTyped(error, values);
}

/** Arguments by the field of the request that carries them; every other field is a flag of its name. */
const ARGUMENTS: Readonly<Record<string, string>> = { url: 'URL', title: 'TITLE', id: 'ID' };

/** A field that was refused is a flag or an argument to whoever typed it, and a usage error. */
function inWordsTyped(fault: Fault, values: ClientValues): Fault {
  const { field } = fault.detail;
  if (typeof field !== 'string' || !['body_invalid', 'request_malformed'].includes(fault.code)) return fault;
  const key = field.split('.')[1]?.replace(/Ms$/, '') ?? '';
  const word = Object.hasOwn(values, key) ? flagName(key) : ARGUMENTS[key];
  if (word === undefined) return fault;
  return new Fault('config_invalid', fault.message.replace(field, word), { cause: fault, detail: { field: word } });
}

/** What the command has found out, once: JSON alone on stdout, or text made for this terminal. */
export function say(values: { readonly json: boolean }, data: unknown, text: (look: Look) => string): void {
  process.stdout.write(
    values.json ? `${JSON.stringify(data, null, 2)}\n` : `${text(lookOf(process.stdout, process.env))}\n`,
  );
}

/** A remark on the way, never on stdout. */
export function remark(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** A usage error of a verb: exit status 2. */
export const usage = (message: string): Fault => new Fault('config_invalid', message);

/** Polls until `look` gives a value; the pause is a courtesy to the service, the bound is the caller's signal. */
export async function poll<T>(
  look: () => Promise<T | null>,
  options: { readonly everyMs: number; readonly signal: AbortSignal },
): Promise<T | null> {
  while (!options.signal.aborted) {
    const found = await look();
    if (found !== null) return found;
    await pause(options.everyMs, options.signal);
  }
  return null;
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done);
  });
}
