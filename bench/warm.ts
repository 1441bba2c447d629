// Brings assets into a cache before anything is measured.

import { Agent, request } from 'undici';

/** Twice, one after the other: what is admitted at the second request is there too. */
const TURNS = 2;

/** Throws where one is not answered whole. */
export async function warm(urls: readonly string[]): Promise<void> {
  const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
  try {
    for (let turn = 0; turn < TURNS; turn += 1) {
      for (const url of urls) {
        const { body, statusCode } = await request(url, { dispatcher });
        if (statusCode !== 200) throw new Error(`${url}: ${statusCode}`);
        await body.dump({ limit: Number.MAX_SAFE_INTEGER });
      }
    }
  } finally {
    await dispatcher.close();
  }
}

/** `url` with 0, 1, … at its end. */
export const numbered = (url: string, count: number): string[] =>
  Array.from({ length: count }, (_, at) => `${url}${at}`);
