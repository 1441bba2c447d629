// The directory of a volume: its layout on disk, and what the disk says when something fails.
//
//   larder-store.json   layout version and block size
//   index/              level database, see disk-volume.ts
//   blocks/<xx>/<id>.<n>  block files; xx is the id modulo 256 in hexadecimal, id in base 36

import { existsSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Fault } from '../../protocol/faults.ts';
import { diskFault, makeDirectory } from '../../runtime/disk.ts';
import { BLOCK_BYTES } from './block-file.ts';

/** Versioned: another layout or block size is refused, never guessed at. */
const LAYOUT = { layout: 1, blockBytes: BLOCK_BYTES };
const FANOUT = 256;

/** File of a block; workers derive it from what the storekeeper tells them. */
export const blockPath = (directory: string, id: number, number: number): string =>
  join(directory, 'blocks', (id % FANOUT).toString(16).padStart(2, '0'), `${id.toString(36)}.${number}`);

export function prepareVolume(directory: string): void {
  try {
    makeDirectory(join(directory, 'blocks'));
    const file = join(directory, 'larder-store.json');
    if (existsSync(file)) {
      const found = JSON.parse(readFileSync(file, 'utf8')) as typeof LAYOUT;
      if (found.layout !== LAYOUT.layout || found.blockBytes !== LAYOUT.blockBytes) {
        throw new Fault(
          'store_mismatch',
          `${directory} has layout ${found.layout} with blocks of ${found.blockBytes} bytes; this version reads layout ${LAYOUT.layout} with ${LAYOUT.blockBytes}`,
        );
      }
      return;
    }
    if (!blockFiles(directory).next().done)
      throw new Fault('store_mismatch', `${directory} has blocks but no larder-store.json`);
    for (let at = 0; at < FANOUT; at += 1) makeDirectory(join(directory, 'blocks', at.toString(16).padStart(2, '0')));
    writeFileSync(`${file}.tmp`, `${JSON.stringify(LAYOUT)}\n`, { flush: true });
    renameSync(`${file}.tmp`, file);
  } catch (error) {
    throw diskFault(error, directory);
  }
}

export function* blockFiles(directory: string): Generator<string> {
  for (const fan of readdirSync(join(directory, 'blocks'))) {
    for (const name of readdirSync(join(directory, 'blocks', fan))) yield join(directory, 'blocks', fan, name);
  }
}

export function directoryBytes(path: string): number {
  let bytes = 0;
  for (const name of readdirSync(path)) {
    try {
      bytes += statSync(join(path, name)).size;
    } catch {
      // Compaction removed it between the two calls.
    }
  }
  return bytes;
}
