// Runs one case against one server: its requests over one connection, and what came back. A last request for a small file shows
// whether the connection still answers, and in step.

import { field, HttpConnection, type HttpResponse } from '../../appliance/test/http-client.ts';
import { SENTINEL } from './assets.ts';
import { requestText, type Case } from './requests.ts';

const DEADLINE_MS = 10_000;
const LAST = `GET /sentinel HTTP/1.1\r\nHost: larder.test\r\nConnection: close\r\n\r\n`;

/** `closed`: the server closed the connection instead. `broken`: what came is not a response to that request. */
export type Observation =
  | { readonly kind: 'response'; readonly response: HttpResponse; readonly open: boolean }
  | { readonly kind: 'closed' }
  | { readonly kind: 'broken'; readonly reason: string };

/** One observation per request, as far as the connection went. */
export async function observeCase(port: number, testCase: Case, prefix: string): Promise<Observation[]> {
  const texts = testCase.requests.map((request) => requestText(request, prefix));
  const connection = await HttpConnection.open(port, DEADLINE_MS);
  const responses: HttpResponse[] = [];
  const observations = (last: Observation | null): Observation[] => [
    ...responses.map((response, at) => ({
      kind: 'response' as const,
      response,
      open: at < responses.length - 1 || last === null || last.kind === 'broken',
    })),
    ...(last === null ? [] : [last]),
  ];
  try {
    if (testCase.pipelined) connection.send(Buffer.from(texts.join('') + LAST, 'latin1'));
    for (const [at, { method }] of testCase.requests.entries()) {
      if (!testCase.pipelined) connection.send(texts[at]!);
      const response = await connection.readResponse(method);
      if (response === null) return observations({ kind: 'closed' });
      responses.push(response);
    }
    if (!testCase.pipelined) connection.send(LAST);
    const last = await connection.readResponse();
    if (last === null) return observations({ kind: 'closed' });
    if (last.status !== 200 || field(last, 'etag') !== SENTINEL.etag || !last.body.equals(SENTINEL.body))
      return observations({
        kind: 'broken',
        reason: `the next response is a ${last.status}: ${startOf(last.body)}`,
      });
    await connection.closed();
    if (connection.unread.length > 0)
      return observations({ kind: 'broken', reason: `bytes after the last response: ${startOf(connection.unread)}` });
    return observations(null);
  } catch (error) {
    return observations({ kind: 'broken', reason: (error as Error).message.slice(0, 200) });
  } finally {
    connection.destroy();
  }
}

const startOf = (bytes: Buffer): string => JSON.stringify(bytes.subarray(0, 80).toString('latin1'));
