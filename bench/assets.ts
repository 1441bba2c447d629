// The assets that benches request: writing them for an origin, and warming up a cache with them.

import { randomFillSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Agent, request } from 'undici';

/** The second pass stores what a cache admits only at the second request. */
const PASSES = 2;

/** Writes files of random bytes to ROOT/asset-N. */
export function writeAssets(root: string, assets: number, bytes: number): void {
  const content = Buffer.alloc(bytes);
  for (let number = 0; number < assets; number += 1)
    writeFileSync(join(root, `asset-${number}`), randomFillSync(content));
}

/** `prefix` followed by 0, 1, … */
export const numberedUrls = (prefix: string, count: number): string[] =>
  Array.from({ length: count }, (_, number) => `${prefix}${number}`);

/** Requests every URL, so that the cache stores it. Throws if a response is not 200. */
export async function warmUp(urls: readonly string[]): Promise<void> {
  const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
  try {
    for (let pass = 0; pass < PASSES; pass += 1) {
      for (const url of urls) {
        const { body, statusCode } = await request(url, { dispatcher });
        if (statusCode !== 200) throw new Error(`${url}: ${statusCode}`);
        await body.dump({ limit: Number.MAX_SAFE_INTEGER });
      }
    }
  } finally {
    await dispatcher.destroy();
  }
}
