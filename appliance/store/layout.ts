// The directory of a volume:
//
//   larder-store.json     layout version and block size
//   index/                LevelDB database, see volume-index.ts
//   blocks/<xx>/<id>.<n>  block n of an entry; xx is the id modulo 256 in hexadecimal, the id is in base 36

import { existsSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Fault } from '../../protocol/faults.ts';
import { diskFault, makeDirectory } from '../../runtime/disk.ts';
import { BLOCK_BYTES } from './block-file.ts';

/**
 * A store with another layout or block size is refused. What a release adds without making the store unreadable for the release
 * before it is an optional field and keeps the number; readers ignore fields that they do not know.
 */
const LAYOUT = { layout: 2, blockBytes: BLOCK_BYTES };
const FANOUT = 256;

/** Workers derive the path of a block from the entry's directory and id, which the storekeeper sends them. */
export const blockPath = (directory: string, id: number, number: number): string =>
  join(directory, 'blocks', (id % FANOUT).toString(16).padStart(2, '0'), `${id.toString(36)}.${number}`);

/** Null for the path of any other file. */
export function parseBlockPath(path: string): { readonly id: number; readonly number: number } | null {
  const name = /([0-9a-z]+)\.(\d+)$/.exec(path);
  return name === null ? null : { id: Number.parseInt(name[1]!, 36), number: Number(name[2]) };
}

const markerOf = (directory: string): string => join(directory, 'larder-store.json');

/** Whether the directory has been prepared as a volume. */
export const isPrepared = (directory: string): boolean => existsSync(markerOf(directory));

/** Creates the directories of a new volume, or checks the layout of an old one. Throws `store_mismatch`, `disk_full`, `disk_failed`. */
export function prepareVolume(directory: string): void {
  try {
    makeDirectory(join(directory, 'blocks'));
    const file = markerOf(directory);
    if (existsSync(file)) {
      const found = JSON.parse(readFileSync(file, 'utf8')) as typeof LAYOUT;
      if (found.layout !== LAYOUT.layout || found.blockBytes !== LAYOUT.blockBytes) {
        throw new Fault(
          'store_mismatch',
          `${directory} has layout ${found.layout} with blocks of ${found.blockBytes} bytes; this version reads layout ${LAYOUT.layout} with ${LAYOUT.blockBytes}; use an empty --store directory`,
        );
      }
      return;
    }
    if (!blockFiles(directory).next().done)
      throw new Fault(
        'store_mismatch',
        `${directory} has blocks but no larder-store.json; use an empty --store directory`,
      );
    for (let at = 0; at < FANOUT; at += 1) makeDirectory(join(directory, 'blocks', at.toString(16).padStart(2, '0')));
    writeFileSync(`${file}.tmp`, `${JSON.stringify(LAYOUT)}\n`, { flush: true });
    renameSync(`${file}.tmp`, file);
  } catch (error) {
    throw diskFault(error, directory);
  }
}

/** Paths of all files below `blocks/`, temporary ones included. */
export function* blockFiles(directory: string): Generator<string> {
  for (const folder of blockFolders(directory)) for (const name of readdirSync(folder)) yield join(folder, name);
}

/** The folders below `blocks/`. */
export const blockFolders = (directory: string): string[] =>
  readdirSync(join(directory, 'blocks')).map((name) => join(directory, 'blocks', name));

/** Paths of the files of one entry. */
export function blockFilesOf(directory: string, id: number): string[] {
  const folder = dirname(blockPath(directory, id, 0));
  const prefix = `${id.toString(36)}.`;
  return readdirSync(folder)
    .filter((name) => name.startsWith(prefix))
    .map((name) => join(folder, name));
}

export function directoryBytes(path: string): number {
  let bytes = 0;
  for (const name of readdirSync(path)) {
    try {
      bytes += statSync(join(path, name)).size;
    } catch {
      // A compaction removed the file between the two calls.
    }
  }
  return bytes;
}
