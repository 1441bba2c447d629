// A database as the next release would have left it: with a field of its own in every record, and a row of its own.

import { Level } from 'level';

export const NEW_FIELD = { laterField: { of: ['the next release'] } };

/** `edit` returns the text that the next release would have in the place of a record. By default the record is JSON. */
export async function writeAsNextRelease(
  path: string,
  edit: (key: string, text: string) => string = (_, text) => withNewField(text),
): Promise<void> {
  const db = new Level(path);
  for (const [key, text] of await db.iterator().all()) await db.put(key, edit(key, text));
  await db.put('zz-of-the-next-release', '{}');
  await db.close();
}

export const withNewField = (text: string): string =>
  text.startsWith('{') ? JSON.stringify({ ...(JSON.parse(text) as object), ...NEW_FIELD }) : text;
