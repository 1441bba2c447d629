// The scrub of a volume: every block file is read and checked in turn, at a bounded rate, so that damage to what nobody watches is found
// while the origin still has the bytes. It reads beside the page cache, because what it reads is neither hot nor what the page cache
// has: a file that was damaged on the disk may look whole in memory. It also removes files that the index does not know.
//
// A pass over a volume takes two weeks, or longer where the rate would exceed its maximum. Each start begins at a random folder, so
// that an appliance that is restarted often gets around, too.

import { constants } from 'node:fs';
import { open, readdir, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { BLOCK_BYTES, HEAD_BYTES, isIntactBlock } from './block-file.ts';
import { blockFolders, parseBlockPath } from './layout.ts';
import type { Entry, Volume } from './volume.ts';

const PASS_MS = 14 * 24 * 3_600_000;
const RATE_MIN = 2 ** 20;
const RATE_MAX = 64 * 2 ** 20;
/** A file that the index has not known for this long was not just written, nor is it about to be removed. */
const ORPHAN_MS = 3_600_000;
/** As long as this takes at the least rate: a minute. */
const BETWEEN_PASSES_BYTES = 60 * RATE_MIN;

export interface ScrubDeps {
  readonly volume: Pick<Volume, 'directory' | 'entry'>;
  /** Bytes that the volume holds, from which the rate follows. */
  readonly bytes: () => number;
  /** Called for a block that fails its checksum, belongs to another asset or cannot be read. */
  readonly onDamaged: (entry: Entry, number: number) => Promise<void>;
  readonly onChecked: (bytes: number) => void;
  readonly clock: Clock;
  readonly log: Log;
  /** The folder to begin with, modulo their number. */
  readonly firstFolder: number;
  /** Bytes a second; from `bytes` if absent. */
  readonly rate?: number;
}

export class Scrub {
  readonly #deps: ScrubDeps;
  readonly #stopped = new AbortController();
  readonly #aborted = new Promise<void>((resolve) => this.#stopped.signal.addEventListener('abort', () => resolve()));
  /** Bytes a second in this pass. */
  #rate = RATE_MIN;

  constructor(deps: ScrubDeps) {
    this.#deps = deps;
  }

  /** Begins the first pass. */
  start(): void {
    void this.#run().catch((error: unknown) => {
      if (!this.#stopped.signal.aborted) throw error;
    });
  }

  /** A read that a disk does not answer is not waited for. */
  stop(): void {
    this.#stopped.abort();
  }

  async #run(): Promise<never> {
    const { alignedBuffer } = await import('../io/nonblocking-io.ts');
    const buffer = alignedBuffer(HEAD_BYTES + BLOCK_BYTES);
    for (;;) {
      // An empty volume has nothing to pause for, one that fails is not asked again at once, and the first viewers after a start wait for
      // nothing.
      await this.#pause(BETWEEN_PASSES_BYTES);
      await this.pass(buffer).catch((error: unknown) => {
        if (!this.#stopped.signal.aborted)
          this.#deps.log.error({ err: error, volume: this.#deps.volume.directory }, 'a volume cannot be scrubbed');
      });
    }
  }

  /** Looks at every file of the volume once. The buffer is aligned, for reads that bypass the page cache. */
  async pass(buffer: Buffer): Promise<void> {
    const { volume, firstFolder, log, rate } = this.#deps;
    this.#rate = rate ?? rateFor(this.#deps.bytes());
    const folders = blockFolders(volume.directory);
    for (let at = 0; at < folders.length; at += 1) {
      const folder = folders[(firstFolder + at) % folders.length]!;
      try {
        for (const name of await readdir(folder)) await this.#pause(await this.#examine(join(folder, name), buffer));
      } catch (error) {
        if (this.#stopped.signal.aborted) throw error;
        log.error({ err: error, folder }, 'a folder of block files cannot be scrubbed');
        await this.#pause(BLOCK_BYTES);
      }
    }
  }

  /** Returns how many bytes were read. */
  async #examine(path: string, buffer: Buffer): Promise<number> {
    const { volume, onDamaged, onChecked, log } = this.#deps;
    const at = parseBlockPath(path);
    const entry = at === null ? undefined : volume.entry(at.id);
    if (at === null || entry?.blocks.has(at.number) !== true) {
      await this.#removeOrphan(path);
      return HEAD_BYTES;
    }
    const isPresent = (): boolean => !entry.removed && entry.blocks.has(at.number);
    const isIntact = async (): Promise<boolean> => {
      const bytes = await readBeside(path, buffer);
      onChecked(bytes);
      return isIntactBlock(buffer.subarray(0, bytes), entry, at.number);
    };
    try {
      // Read once more before it is given up, and not if it was removed or replaced while it was read.
      if ((await isIntact()) || !isPresent() || (await isIntact()) || !isPresent()) return buffer.length;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT') return HEAD_BYTES;
      // Anything else, such as too many open files, says nothing about the block.
      if (code !== 'EIO') throw error;
    }
    log.error({ path }, 'the scrub found a damaged block');
    await Promise.race([onDamaged(entry, at.number), this.#aborted]);
    return buffer.length;
  }

  async #removeOrphan(path: string): Promise<void> {
    const { clock, log } = this.#deps;
    try {
      const { mtimeMs } = await stat(path);
      if (clock.now() - mtimeMs < ORPHAN_MS) return;
      await unlink(path);
      log.warn({ path }, 'a file that the index does not know was removed');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }

  /** Waits until these bytes fit into the rate. */
  #pause(bytes: number): Promise<void> {
    return this.#deps.clock.sleep((bytes / this.#rate) * 1_000, this.#stopped.signal);
  }
}

const rateFor = (storedBytes: number): number =>
  Math.min(RATE_MAX, Math.max(RATE_MIN, (storedBytes / PASS_MS) * 1_000));

/** Reads a whole file from the disk. Where the file system has no direct reads, its pages are dropped afterwards. */
async function readBeside(path: string, buffer: Buffer): Promise<number> {
  const { dropPages } = await import('../io/nonblocking-io.ts');
  // Undefined on other systems than Linux.
  const direct = constants.O_DIRECT | 0;
  try {
    return await readFileInto(path, constants.O_RDONLY | direct, buffer);
  } catch (error) {
    if (direct === 0 || (error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
    return await readFileInto(path, constants.O_RDONLY, buffer, dropPages);
  }
}

async function readFileInto(
  path: string,
  flags: number,
  buffer: Buffer,
  afterwards: (fd: number) => Promise<void> = async () => undefined,
): Promise<number> {
  const file = await open(path, flags);
  try {
    const { bytesRead } = await file.read(buffer, 0, buffer.length, 0);
    await afterwards(file.fd);
    return bytesRead;
  } finally {
    await file.close();
  }
}
