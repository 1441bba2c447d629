// Calls between components: JSON over HTTP, limited in time and size. Responses are validated with a schema.

import type { Dispatcher } from 'undici';
import type { z } from 'zod';
import { Fault, FAULTS, type FaultBody } from '../protocol/faults.ts';
import { undici } from './undici.ts';

const CALL_TIMEOUT_MS = 10_000;
const ANSWER_BYTES_MAX = 64 * 2 ** 20;

export interface Call<S extends z.ZodType> {
  readonly url: string;
  readonly method?: 'GET' | 'POST' | 'PUT' | 'DELETE';
  readonly body?: unknown;
  readonly token: string | null;
  /** Schema of the response. */
  readonly answer: S;
  readonly timeoutMs?: number;
  /** A connection pool of the caller's own (bulkhead); the pool of the process if absent. */
  readonly dispatcher?: Dispatcher;
  readonly signal?: AbortSignal;
}

/** Throws the fault that the service returned, `unreachable` without a response, or `peer_invalid` if the response is not valid. */
export async function call<S extends z.ZodType>(spec: Call<S>): Promise<z.infer<S>> {
  const timeout = AbortSignal.timeout(spec.timeoutMs ?? CALL_TIMEOUT_MS);
  let status: number;
  let text: string;
  try {
    const response = await undici().request(spec.url, {
      method: spec.method ?? 'GET',
      headers: {
        accept: 'application/json',
        ...(spec.body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(spec.token === null ? {} : { authorization: `Bearer ${spec.token}` }),
      },
      body: spec.body === undefined ? null : JSON.stringify(spec.body),
      signal: spec.signal === undefined ? timeout : AbortSignal.any([timeout, spec.signal]),
      ...(spec.dispatcher === undefined ? {} : { dispatcher: spec.dispatcher }),
    });
    status = response.statusCode;
    text = await readText(response.body, spec.url);
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw new Fault('unreachable', `${spec.url} did not answer: ${reasonOf(error)}`, { cause: error });
  }
  const json = parseJson(text);
  if (status >= 400) throw faultFrom(status, json, spec.url);
  const result = spec.answer.safeParse(json);
  if (!result.success) {
    const issue = result.error.issues[0]!;
    throw new Fault(
      'peer_invalid',
      `${spec.url} answered a body that this version does not understand: ${issue.path.join('.')}: ${issue.message}`,
    );
  }
  return result.data;
}

async function readText(body: Dispatcher.ResponseData['body'], url: string): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > ANSWER_BYTES_MAX)
      throw new Fault('peer_invalid', `${url} answered more than ${ANSWER_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
}

function faultFrom(status: number, json: unknown, url: string): Fault {
  const body = json as FaultBody | null;
  const code = body?.error?.code;
  if (code !== undefined && code in FAULTS) {
    const { message, help, detail } = body!.error;
    return new Fault(code, message, { help, detail: { ...detail } });
  }
  return new Fault('peer_invalid', `${url} answered ${status}`);
}

/** The innermost reason of an error, because undici wraps `ECONNREFUSED` several times. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.name === 'TimeoutError') return 'timed out';
  if (error instanceof AggregateError && error.errors.length > 0) return reasonOf(error.errors[0]);
  const code = (error as NodeJS.ErrnoException).code;
  return code !== undefined && !error.message.includes(code) ? `${code}: ${error.message}` : error.message;
}
