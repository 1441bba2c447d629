// `larder catalog import URL`: fill reads the manifest at the origin, follows it to every asset and computes digests.

import type { Command } from 'commander';
import { importAccepted, importProgress, type ImportProgress } from '../../protocol/answers.ts';
import { Fault, FAULTS, type FaultCode } from '../../protocol/faults.ts';
import { formatBytes } from '../../protocol/units.ts';
import { addFlags, CLIENT_TABLE, readFlags, type Verb } from '../../runtime/command.ts';
import { option } from '../../runtime/config.ts';
import { EXIT } from '../../runtime/process.ts';
import { poll, remark, say, servicesOf, usage, type Services } from '../ask.ts';
import { createProgress, RateMeter, type Progress } from '../progress.ts';
import { interruptible } from '../interrupt.ts';

const LOOK_MS = 200;

const TABLE = {
  title: option.optional(option.id({ doc: 'Id of the title (default: from the URL)' })),
  ...CLIENT_TABLE,
} as const;

const EXAMPLES = `
Examples:
  larder catalog import http://127.0.0.1:8600/harbor/master.m3u8
  larder catalog import http://127.0.0.1:8600/harbor/manifest.mpd --title harbor

The second is another manifest of the same files: it joins the title.`;

export const verb: Verb = {
  build(command: Command): void {
    addFlags(
      command.argument('<url>', 'HLS multivariant playlist (.m3u8) or DASH MPD (.mpd) at the origin'),
      TABLE,
      'no file',
    )
      .addHelpText('after', EXAMPLES)
      .action(run);
  },
};

async function run(url: string, _flags: unknown, command: Command): Promise<void> {
  const values = readFlags(command, TABLE);
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol))
    throw usage(`URL is "${url}", but must be an http:// or https:// URL of a manifest`);
  const found = await interruptible((signal) =>
    importTitle(servicesOf(values), { url, title: values.title }, createProgress(), signal),
  );
  if (found === null) {
    remark('Interrupted; fill goes on with the import. See it with: larder catalog ls');
    process.exitCode = EXIT.interrupted;
    return;
  }
  say(values, found, () => `Imported ${found.title}: ${found.assetsTotal} assets, ${formatBytes(found.bytesTotal)}.`);
}

/** Follows the import to its end; throws what fill found wrong with it; null where the signal came first. */
export async function importTitle(
  services: Services,
  asked: { readonly url: string; readonly title: string | null },
  progress: Progress,
  signal: AbortSignal,
): Promise<ImportProgress | null> {
  const { id } = await services.fill('/v1/imports', importAccepted, { method: 'POST', body: asked });
  const meter = new RateMeter();
  const name = `import ${asked.title ?? lastWords(asked.url)}`;
  try {
    const ended = await poll(
      async () => {
        const now = await services.fill(`/v1/imports/${id}`, importProgress);
        const bytesPerSecond = meter.note(performance.now(), now.bytesDone);
        const row = { name, done: now.bytesDone, total: now.bytesTotal, bytesPerSecond };
        progress.show([now.bytesTotal === 0 ? { ...row, note: 'reading the manifest' } : row]);
        return now.state === 'running' ? null : now;
      },
      { everyMs: LOOK_MS, signal },
    );
    if (ended?.state === 'failed') throw importFault(ended);
    return ended;
  } finally {
    progress.stop();
  }
}

function importFault(ended: ImportProgress): Fault {
  const code = ended.fault?.code ?? 'internal';
  return new Fault(
    code in FAULTS ? (code as FaultCode) : 'internal',
    `${ended.url} was not imported: ${ended.fault?.message ?? 'fill gave no reason'}`,
    ended.fault === null ? {} : { help: ended.fault.help },
  );
}

const lastWords = (url: string): string => new URL(url).pathname.split('/').slice(-2).join('/');
