// One case at one server: its requests over one connection, and what came back. After them the connection is asked for a
// small file, so that whether it still answers, and in step, is seen and not believed.

import { field, Wire, type Answer } from '../../appliance/test/wire.ts';
import { SENTINEL } from './assets.ts';
import { requestText, type Case } from './requests.ts';

const DEADLINE_MS = 10_000;
const LAST = `GET /sentinel HTTP/1.1\r\nHost: larder.test\r\nConnection: close\r\n\r\n`;

/** `none`: the server hung up instead. `broken`: what came is no answer to that request. */
export type Seen =
  | { readonly kind: 'answer'; readonly answer: Answer; readonly open: boolean }
  | { readonly kind: 'none' }
  | { readonly kind: 'broken'; readonly why: string };

/** One for each request, as far as the connection went. */
export async function transcribe(port: number, what: Case, prefix: string): Promise<Seen[]> {
  const texts = what.requests.map((request) => requestText(request, prefix));
  const wire = await Wire.open(port, DEADLINE_MS);
  const answers: Answer[] = [];
  const seen = (last: Seen | null): Seen[] => [
    ...answers.map((answer, at) => ({
      kind: 'answer' as const,
      answer,
      open: at < answers.length - 1 || last === null || last.kind === 'broken',
    })),
    ...(last === null ? [] : [last]),
  ];
  try {
    if (what.pipelined) wire.send(Buffer.from(texts.join('') + LAST, 'latin1'));
    for (const [at, { method }] of what.requests.entries()) {
      if (!what.pipelined) wire.send(texts[at]!);
      const answer = await wire.answer(method);
      if (answer === null) return seen({ kind: 'none' });
      answers.push(answer);
    }
    if (!what.pipelined) wire.send(LAST);
    const last = await wire.answer();
    if (last === null) return seen({ kind: 'none' });
    if (last.status !== 200 || field(last, 'etag') !== SENTINEL.etag || !last.body.equals(SENTINEL.body))
      return seen({ kind: 'broken', why: `the next answer is a ${last.status}: ${head(last.body)}` });
    await wire.closed();
    if (wire.surplus.length > 0)
      return seen({ kind: 'broken', why: `bytes after the last answer: ${head(wire.surplus)}` });
    return seen(null);
  } catch (error) {
    return seen({ kind: 'broken', why: (error as Error).message.slice(0, 200) });
  } finally {
    wire.destroy();
  }
}

const head = (bytes: Buffer): string => JSON.stringify(bytes.subarray(0, 80).toString('latin1'));
