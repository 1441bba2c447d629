// Makes Larder's sample titles: draws, encodes and packages them.
//
//   harbor   128 s  CMAF segments          one set of files, HLS and DASH; two languages, subtitles, I-frames
//   meadow    40 s  one MP4 per rendition  HLS byte ranges and DASH SegmentBase over the same files
//   tunnel    30 s  MPEG-TS                HLS with AES-128
//
// Usage   node --experimental-strip-types ops/media/make.ts [title…] [--out DIR] [--work DIR]
//
//   title…      the titles to make (default: all three)
//   --out DIR   where the titles are written (default: titles/ beside this script)
//   --work DIR  where drawings and encodes are kept and reused (default: a temporary folder)
//
// Needs   Node 22.6 or newer; ffmpeg 5.1 or newer with libx264, librsvg, freetype and fontconfig, as packaged by Debian;
//         the DejaVu fonts (Debian: apt-get install ffmpeg fonts-dejavu-core). About five minutes on two cores.
//
// The pictures are flat SVG drawings that ffmpeg's filters move over one another; the sound is ffmpeg's aevalsrc. Except for the
// media playlists of tunnel, playlists and manifests are written by these scripts from the boxes of the files, so byte ranges,
// durations and codecs are measured. Random numbers are seeded, the encoders run on one thread and nothing depends on the time,
// so the same version of ffmpeg makes the same bytes.

import { mkdir, mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { encode } from './encode.ts';
import { packRanges, packSegments, packTransport } from './pack.ts';
import { drawHarbor, drawMeadow, drawTunnel } from './scenes.ts';
import type { Rendition, Title } from './title.ts';

const ladder = (crf: [number, number, number], maxrate: [number, number, number]): Rendition[] => [
  { name: '144p', width: 256, height: 144, crf: crf[0], maxrate: maxrate[0], profile: 'main', level: '1.2' },
  { name: '240p', width: 426, height: 240, crf: crf[1], maxrate: maxrate[1], profile: 'main', level: '2.1' },
  { name: '360p', width: 640, height: 360, crf: crf[2], maxrate: maxrate[2], profile: 'high', level: '3.0' },
];

/** The subtitles of harbor. */
const HARBOR_LINES = [
  'The last ferry has gone.\nThe harbor keeps the light a little longer.',
  'Gulls go home over the breakwater.',
  'A red sail comes in on the evening wind.',
  'The sun is low enough to look at.',
  'It touches the water, and the water keeps it.',
  'Somebody lights the first window.',
  'Then everybody does.',
  'The keeper climbs his hundred and twelve steps.',
  'One turn of the lamp, one breath.',
  'The first stars stand over the town.',
  'A small boat heads out, against all advice.',
  'The moon comes up to see who it is.',
  'Nobody hurries here after dark.',
  'What was needed tonight was brought in last night.',
  'So the shelves are full, and the road is quiet.',
  'Good night, harbor.',
];

const TITLES: Title[] = [
  {
    id: 'harbor',
    name: 'Harbor',
    tagline: 'evening comes to the lighthouse',
    seconds: 128,
    segmentSeconds: 2,
    textColor: '#fff3dc',
    layers: drawHarbor,
    renditions: ladder([26, 26, 26], [120, 240, 500]),
    sound: {
      en: { step: 0.5, base: 261.63, notes: [0, 4, 7, 12, 9, 7, 4, 2, 0, 4, 9, 14, 12, 9, 7, 4], overtone: 0.25 },
      fr: { step: 0.75, base: 220, notes: [0, 7, 3, 10, 12, 10, 7, 5, 3, 7, 0, -2], overtone: 0.6 },
    },
    subtitles: HARBOR_LINES,
    pack: packSegments,
  },
  {
    id: 'meadow',
    name: 'Meadow',
    tagline: 'a windmill, some sheep, two balloons',
    seconds: 40,
    segmentSeconds: 4,
    textColor: '#23402a',
    layers: drawMeadow,
    renditions: ladder([30, 30, 30], [110, 220, 500]),
    sound: {
      en: { step: 0.4, base: 293.66, notes: [0, 7, 4, 7, 2, 7, 4, 7, -3, 4, 0, 4, -1, 7, 2, 7], overtone: 0.35 },
    },
    subtitles: [],
    pack: packRanges,
  },
  {
    id: 'tunnel',
    name: 'Tunnel',
    tagline: 'the night road, encrypted',
    seconds: 30,
    segmentSeconds: 3,
    textColor: '#f4f1ff',
    layers: drawTunnel,
    finish: 'fade=t=out:st=28.2:d=1.7:color=white',
    renditions: ladder([35, 35, 35], [110, 220, 500]),
    sound: {
      en: { step: 0.25, base: 146.83, notes: [0, 12, 7, 12, 3, 12, 7, 15, -2, 10, 5, 10, 2, 10, 7, 14], overtone: 0.5 },
    },
    subtitles: [],
    pack: packTransport,
  },
];

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { out: { type: 'string' }, work: { type: 'string' } } });
  const unknown = positionals.find((id) => !TITLES.some((t) => t.id === id));
  if (unknown !== undefined) throw new Error(`no title ${unknown}: ${TITLES.map((t) => t.id).join(', ')}`);
  const out = resolve(values.out ?? join(dirname(fileURLToPath(import.meta.url)), 'titles'));
  const work = values.work === undefined ? await mkdtemp(join(tmpdir(), 'larder-media-')) : resolve(values.work);
  try {
    for (const title of TITLES.filter((t) => positionals.length === 0 || positionals.includes(t.id))) {
      const say = (what: string): void => console.error(`${title.id}: ${what}`);
      await mkdir(join(work, title.id), { recursive: true });
      const made = await encode(title, join(work, title.id), say);
      say('packaging');
      await rm(join(out, title.id), { recursive: true, force: true });
      await title.pack(title, made, join(out, title.id));
      say(`${(await sizeOf(join(out, title.id))).toLocaleString('en')} bytes`);
    }
  } finally {
    if (values.work === undefined) await rm(work, { recursive: true, force: true });
  }
}

async function sizeOf(folder: string): Promise<number> {
  const entries = await readdir(folder, { withFileTypes: true });
  const sizes = await Promise.all(entries.map(async (e) => (e.isDirectory() ? sizeOf(join(folder, e.name)) : (await stat(join(folder, e.name))).size)));
  return sizes.reduce((a, b) => a + b, 0);
}

await main();
