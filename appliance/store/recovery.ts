// Recovery of a disk volume at start: load the index, rebuild it from the heads of the block files if it was lost, or the records of
// it that are damaged, then examine every block that a former process left an intent for. The block file itself decides whether the
// block is present.

import { rmSync } from 'node:fs';
import { isFault } from '../../protocol/faults.ts';
import type { Log } from '../../runtime/log.ts';
import { Bitmap } from './bitmap.ts';
import { blockCount, isBlockOf, readHeadSync, unlinkIfPresent, type BlockHead } from './block-file.ts';
import type { AssetRecord } from './index-record.ts';
import { blockFiles, blockFilesOf, blockPath, parseBlockPath } from './layout.ts';
import type { Entry, Volume } from './volume.ts';
import type { VolumeIndex } from './volume-index.ts';

export interface RecoveryDeps {
  readonly volume: Pick<Volume, 'directory' | 'read'>;
  readonly index: VolumeIndex;
  readonly log: Log;
}

export async function recover(deps: RecoveryDeps): Promise<void> {
  const { complete, damaged } = await deps.index.load();
  if (complete) await rebuildRecords(deps, damaged);
  else await rebuildIndex(deps);
  await resolveIntents(deps);
}

/** Deletes the files that are no valid blocks. */
async function rebuildIndex({ volume, index, log }: RecoveryDeps): Promise<void> {
  let blocks = 0;
  for (const path of blockFiles(volume.directory)) {
    if (indexBlockFile(index, path)) blocks += 1;
    else rmSync(path, { force: true });
  }
  if (blocks > 0)
    log.warn({ volume: volume.directory, assets: index.size, blocks }, 'the index was lost, rebuilt from block files');
  await index.complete();
}

/** A record that fails its checksum is not believed in anything, so its blocks are read for what they are. */
async function rebuildRecords({ volume, index, log }: RecoveryDeps, damaged: ReadonlySet<number>): Promise<void> {
  if (damaged.size === 0) return;
  log.error(
    { volume: volume.directory, records: damaged.size },
    'records of the index are damaged, rebuilding them from block files',
  );
  for (const id of damaged) {
    if (index.get(id) === undefined)
      for (const path of blockFilesOf(volume.directory, id))
        if (!indexBlockFile(index, path)) rmSync(path, { force: true });
    index.replaceRecord(id);
  }
  await index.complete();
}

/** Marks the block of a file present. False if the file is not a valid block. */
function indexBlockFile(index: VolumeIndex, path: string): boolean {
  const at = parseBlockPath(path);
  const head = at === null ? null : headOrNull(path);
  if (at === null || head === null) return false;
  const entry = index.get(at.id) ?? index.add(at.id, recordOf(head), { confirmed: true });
  if (!isBlockOf(head, entry, at.number)) return false;
  index.markPresent(entry, at.number);
  return true;
}

/** The oldest recency, because heads do not have one. */
const recordOf = (head: BlockHead): AssetRecord => ({
  meta: { ...head, bytes: head.assetBytes },
  blocks: new Bitmap(blockCount(head.assetBytes)),
  touchedMs: 0,
});

async function resolveIntents({ volume, index, log }: RecoveryDeps): Promise<void> {
  for await (const { id, number } of index.leftIntents()) {
    const entry = index.get(id);
    const path = blockPath(volume.directory, id, number);
    let present = false;
    try {
      await unlinkIfPresent(`${path}.tmp`);
      present = entry !== undefined && (await isIntact(volume, entry, number));
      if (!present) await unlinkIfPresent(path);
      index.deleteIntent(id, number);
    } catch (error) {
      // A failing disk proves nothing: the file and its intent stay for the next start.
      log.error({ err: error, path }, 'a block file with an intent cannot be examined');
    }
    if (entry === undefined) continue;
    if (present) index.markPresent(entry, number);
    else index.markAbsent(entry, number);
  }
  await index.flush();
}

async function isIntact(volume: RecoveryDeps['volume'], entry: Entry, number: number): Promise<boolean> {
  try {
    return (await volume.read(entry, number)) !== null;
  } catch (error) {
    if (isFault(error) && error.code === 'disk_corrupt') return false;
    throw error;
  }
}

function headOrNull(path: string): BlockHead | null {
  try {
    return readHeadSync(path);
  } catch {
    return null;
  }
}
