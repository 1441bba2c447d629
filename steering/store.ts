// Steering's state on disk: one level database with the registry of appliances and the catalog. A record that this version
// cannot read is skipped and logged. Heartbeats and fill restore everything within seconds, except drains.

import { join } from 'node:path';
import type { Level } from 'level';
import { z } from 'zod';
import { title, type Title } from '../protocol/catalog.ts';
import { checkLayout, openLevel } from '../runtime/level.ts';
import type { Log } from '../runtime/log.ts';
import type { CatalogStore } from './catalog.ts';
import { applianceRecord, inventoryRecord, type Registry } from './registry.ts';

/** Raised when a key or record changes its meaning. */
export const STATE_LAYOUT = 1;
const LAYOUT_KEY = 'meta!layout';
const REVISION_KEY = 'meta!catalog-revision';

export interface StateStore {
  readonly registry: Registry;
  readonly catalog: CatalogStore;
  close(): Promise<void>;
}

/** Throws `store_locked`, `store_mismatch` or `disk_failed`. */
export async function openStateStore(directory: string, log: Log): Promise<StateStore> {
  const db: StateDb = await openLevel({ path: join(directory, 'level'), valueEncoding: 'json' });
  await checkLayout(db, { key: LAYOUT_KEY, layout: STATE_LAYOUT, directory });
  return { registry: registryOn(db, log), catalog: catalogStoreOn(db, log), close: () => db.close() };
}

type StateDb = Level<string, unknown>;

function registryOn(db: StateDb, log: Log): Registry {
  return {
    load: async () => ({
      appliances: await readRecords(db, { prefix: 'appliance!', schema: applianceRecord, log }),
      inventories: await readRecords(db, { prefix: 'inventory!', schema: inventoryRecord, log }),
    }),
    save: (record) => db.put(`appliance!${record.beat.appliance}`, record),
    saveInventory: (record) => db.put(`inventory!${record.appliance}`, record),
    remove: (appliance) => db.batch().del(`appliance!${appliance}`).del(`inventory!${appliance}`).write(),
  };
}

function catalogStoreOn(db: StateDb, log: Log): CatalogStore {
  return {
    load: async () => ({
      revision: z
        .number()
        .int()
        .nonnegative()
        .catch(0)
        .parse(await db.get(REVISION_KEY)),
      titles: await readRecords(db, { prefix: 'title!', schema: title, log }),
    }),
    /** Titles and revision are written in one batch; a crash between two writes would lose a change for good. */
    apply: ({ revision, titles, removed }) => {
      const batch = db.batch().put(REVISION_KEY, revision);
      for (const changed of titles) batch.put(`title!${changed.id}`, changed satisfies Title);
      for (const id of removed) batch.del(`title!${id}`);
      return batch.write();
    },
  };
}

async function readRecords<S extends z.ZodType>(
  db: StateDb,
  { prefix, schema, log }: { readonly prefix: string; readonly schema: S; readonly log: Log },
): Promise<z.infer<S>[]> {
  const records: z.infer<S>[] = [];
  // `"` is the character after `!`, so the range covers exactly the keys with the prefix.
  for await (const [key, value] of db.iterator({ gt: prefix, lt: prefix.replace('!', '"') })) {
    const result = schema.safeParse(value);
    if (result.success) records.push(result.data);
    else log.warn({ key, issue: result.error.issues[0] }, 'a stored record was skipped');
  }
  return records;
}
