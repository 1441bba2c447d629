// Steering's state on disk: one level database with the registry of appliances and the catalog. A record that this
// version cannot read is skipped and reported: heartbeats and fill bring everything back within seconds, except drains.

import { join } from 'node:path';
import type { Level } from 'level';
import { z } from 'zod';
import { title, type Title } from '../protocol/catalog.ts';
import { checkLayout, openLevel } from '../runtime/level.ts';
import type { Log } from '../runtime/log.ts';
import type { CatalogStore } from './catalog.ts';
import { applianceRecord, inventoryRecord, type Registry } from './registry.ts';

/** Raised when a key or record changes its meaning. */
export const LAYOUT = 1;
const LAYOUT_KEY = 'meta!layout';
const REVISION_KEY = 'meta!catalog-revision';

export interface Store {
  readonly registry: Registry;
  readonly catalog: CatalogStore;
  close(): Promise<void>;
}

/** Throws `store_locked`, `store_mismatch` or `disk_failed`. */
export async function openStore(directory: string, log: Log): Promise<Store> {
  const db: Db = await openLevel({ path: join(directory, 'level'), valueEncoding: 'json' });
  await checkLayout(db, { key: LAYOUT_KEY, layout: LAYOUT, directory });
  return { registry: registryOn(db, log), catalog: catalogOn(db, log), close: () => db.close() };
}

type Db = Level<string, unknown>;

function registryOn(db: Db, log: Log): Registry {
  return {
    load: async () => ({
      appliances: await readAll(db, { prefix: 'appliance!', schema: applianceRecord, log }),
      inventories: await readAll(db, { prefix: 'inventory!', schema: inventoryRecord, log }),
    }),
    save: (record) => db.put(`appliance!${record.beat.appliance}`, record),
    saveInventory: (record) => db.put(`inventory!${record.appliance}`, record),
    remove: (appliance) => db.batch().del(`appliance!${appliance}`).del(`inventory!${appliance}`).write(),
  };
}

function catalogOn(db: Db, log: Log): CatalogStore {
  return {
    load: async () => ({
      revision: z
        .number()
        .int()
        .nonnegative()
        .catch(0)
        .parse(await db.get(REVISION_KEY)),
      titles: await readAll(db, { prefix: 'title!', schema: title, log }),
    }),
    /** One batch: titles and revision move together, or a crash between them would lose a change for good. */
    apply: ({ revision, titles, removed }) => {
      const batch = db.batch().put(REVISION_KEY, revision);
      for (const changed of titles) batch.put(`title!${changed.id}`, changed satisfies Title);
      for (const gone of removed) batch.del(`title!${gone}`);
      return batch.write();
    },
  };
}

async function readAll<S extends z.ZodType>(
  db: Db,
  { prefix, schema, log }: { readonly prefix: string; readonly schema: S; readonly log: Log },
): Promise<z.infer<S>[]> {
  const found: z.infer<S>[] = [];
  // `"` is the character after `!`: all keys with the prefix.
  for await (const [key, value] of db.iterator({ gt: prefix, lt: prefix.replace('!', '"') })) {
    const result = schema.safeParse(value);
    if (result.success) found.push(result.data);
    else log.warn({ key, issue: result.error.issues[0] }, 'a stored record was skipped');
  }
  return found;
}
