// Larder's sample films: draws them, scores them, encodes them and packages them.
//
//   harbor   128 s  CMAF segments          one set of files, HLS and DASH; two languages, subtitles, I-frames
//   meadow    40 s  one MP4 per rendition  HLS byte ranges and DASH SegmentBase over the same files
//   tunnel    30 s  MPEG-TS                HLS with AES-128
//
// Usage   node --experimental-strip-types ops/media/make.ts [title…] [--out DIR] [--work DIR]
//
//   title…      only these (all three)
//   --out DIR   where the titles go (titles/ beside this script)
//   --work DIR  keep the drawings and encodes there and reuse what is already there (a temporary folder)
//
// Needs   Node 22.6 or newer; ffmpeg 5.1 or newer with libx264, librsvg, freetype and fontconfig, which Debian's has;
//         the DejaVu fonts (Debian: apt-get install ffmpeg fonts-dejavu-core). About five minutes on two cores.
//
// The pictures are flat SVG drawings that ffmpeg's filters move over one another; the sound is ffmpeg's aevalsrc. The
// playlists and manifests, but for tunnel's media playlists, are not ffmpeg's: they are written here from the boxes
// actually found in the files, so byte ranges, durations and codecs are what was measured. Chance is seeded, the encoders
// run on one thread and nothing is stamped with the time, so the same ffmpeg makes the same bytes again.

import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, readFile, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const FPS = 24;
const W = 1280; // the drawing board; the largest rendition is half of it, so motion is smooth to half a pixel
const H = 720;
const AUDIO_RATE = 48_000;

interface Rendition {
  name: string;
  width: number;
  height: number;
  crf: number;
  profile: 'main' | 'high';
  level: string;
  maxrate: number; // kbit/s
}

interface Layer {
  svg: string | string[]; // several drawings are a loop, one per frame
  filter?: string; // applied to the layer before it is laid down; needs its own frames, so the drawing is repeated
  x?: string; // expressions of t, in pixels of the drawing board
  y?: string;
}

interface Title {
  id: string;
  name: string;
  line: string;
  seconds: number;
  segment: number; // seconds; a closed GOP each
  ink: string; // colour of the title text
  layers: () => Layer[];
  finish?: string; // filters over the whole picture, under the text
  renditions: Rendition[];
  sound: Record<string, Melody>; // by language
  pack: (title: Title, made: Made, out: string) => Promise<void>;
}

/** What encoding leaves for packaging: one plain MP4 per video rendition and per language. */
interface Made {
  video: Map<string, string>;
  audio: Map<string, string>;
  work: string;
}

// ---------------------------------------------------------------------------------------------------------- titles

const ladder = (crf: [number, number, number], maxrate: [number, number, number]): Rendition[] => [
  { name: '144p', width: 256, height: 144, crf: crf[0], maxrate: maxrate[0], profile: 'main', level: '1.2' },
  { name: '240p', width: 426, height: 240, crf: crf[1], maxrate: maxrate[1], profile: 'main', level: '2.1' },
  { name: '360p', width: 640, height: 360, crf: crf[2], maxrate: maxrate[2], profile: 'high', level: '3.0' },
];

const TITLES: Title[] = [
  {
    id: 'harbor',
    name: 'Harbor',
    line: 'evening comes to the lighthouse',
    seconds: 128,
    segment: 2,
    ink: '#fff3dc',
    layers: drawHarbor,
    renditions: ladder([26, 26, 26], [120, 240, 500]),
    sound: {
      en: { step: 0.5, base: 261.63, notes: [0, 4, 7, 12, 9, 7, 4, 2, 0, 4, 9, 14, 12, 9, 7, 4], overtone: 0.25 },
      fr: { step: 0.75, base: 220, notes: [0, 7, 3, 10, 12, 10, 7, 5, 3, 7, 0, -2], overtone: 0.6 },
    },
    pack: packSegments,
  },
  {
    id: 'meadow',
    name: 'Meadow',
    line: 'a windmill, some sheep, two balloons',
    seconds: 40,
    segment: 4,
    ink: '#23402a',
    layers: drawMeadow,
    renditions: ladder([30, 30, 30], [110, 220, 500]),
    sound: {
      en: { step: 0.4, base: 293.66, notes: [0, 7, 4, 7, 2, 7, 4, 7, -3, 4, 0, 4, -1, 7, 2, 7], overtone: 0.35 },
    },
    pack: packRanges,
  },
  {
    id: 'tunnel',
    name: 'Tunnel',
    line: 'the night road, encrypted',
    seconds: 30,
    segment: 3,
    ink: '#f4f1ff',
    layers: drawTunnel,
    finish: 'fade=t=out:st=28.2:d=1.7:color=white',
    renditions: ladder([35, 35, 35], [110, 220, 500]),
    sound: {
      en: { step: 0.25, base: 146.83, notes: [0, 12, 7, 12, 3, 12, 7, 15, -2, 10, 5, 10, 2, 10, 7, 14], overtone: 0.5 },
    },
    pack: packTransport,
  },
];

/** The subtitles of harbor: one line every eight seconds, shown for six. */
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

// -------------------------------------------------------------------------------------------------------- pictures

// A picture's curves are written inside the picture, whether or not they use anything of it.
/* oxlint-disable unicorn/consistent-function-scoping */

/** A seeded stream of numbers in [0, 1), so that every run draws the same stars. */
function chance(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let n = Math.imul(state ^ (state >>> 15), 1 | state);
    n = (n + Math.imul(n ^ (n >>> 7), 61 | n)) ^ n;
    return ((n ^ (n >>> 14)) >>> 0) / 2 ** 32;
  };
}

const times = <T>(n: number, make: (i: number) => T): T[] => Array.from({ length: n }, (_, i) => make(i));
const px = (n: number): string => n.toFixed(1);

const svg = (width: number, height: number, ...body: string[]): string =>
  `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">${body.join('')}</svg>`;

/** A gradient named `id`; stops are `offset colour` or `offset colour opacity`. */
function gradient(id: string, kind: 'linear' | 'radial', ...stops: string[]): string {
  const inner = stops.map((stop) => {
    const [offset, colour, opacity = '1'] = stop.split(' ');
    return `<stop offset="${offset}" stop-color="${colour}" stop-opacity="${opacity}"/>`;
  });
  const shape = kind === 'linear' ? 'linearGradient x1="0" y1="0" x2="0" y2="1"' : 'radialGradient';
  return `<defs><${shape} id="${id}">${inner.join('')}</${shape.split(' ')[0]}></defs>`;
}

const rect = (x: number, y: number, w: number, h: number, fill: string): string =>
  `<rect x="${px(x)}" y="${px(y)}" width="${px(w)}" height="${px(h)}" fill="${fill}"/>`;
const disc = (x: number, y: number, r: number, fill: string): string =>
  `<circle cx="${px(x)}" cy="${px(y)}" r="${px(r)}" fill="${fill}"/>`;
const shape = (d: string, fill: string, more = ''): string => `<path d="${d}" fill="${fill}" ${more}/>`;

/** Land or water: filled below the line height(x). */
function ground(width: number, height: number, fill: string, line: (x: number) => number, ...more: string[]): string {
  const top = times(Math.ceil(width / 10) + 1, (i) => `L${i * 10} ${px(line(i * 10))}`).join('');
  return svg(width, height, ...more, shape(`M0 ${height}${top}L${width} ${height}Z`, fill));
}

const fadeIn = (from: number, to: number): string => `fade=t=in:st=${from}:d=${to - from}:alpha=1`;

function drawHarbor(): Layer[] {
  const horizon = 430;
  const rnd = chance(7);
  const sky = svg(W, H, gradient('g', 'linear', '0 #24336b', '0.3 #7a4a86', '0.5 #e8785a', '0.6 #ffc98a'), rect(0, 0, W, H, 'url(#g)'));
  const stars = times(90, () => disc(rnd() * W, rnd() ** 1.4 * 390, 0.9 + rnd() * 1.5, '#dfe8ff'));
  const night = svg(W, H, gradient('g', 'linear', '0 #060b22', '0.6 #21376b'), rect(0, 0, W, H, 'url(#g)'), ...stars);
  const sun = svg(320, 320, gradient('g', 'radial', '0 #fff2c4', '0.4 #ffd98c', '0.42 #ff9f5e 0.5', '1 #ff9f5e 0'), disc(160, 160, 160, 'url(#g)'));
  const moon = svg(240, 240, gradient('g', 'radial', '0 #f3f6ff 0.4', '1 #9db4ff 0'), disc(120, 120, 120, 'url(#g)'), disc(120, 120, 44, '#f4f1e2'), disc(108, 110, 9, '#ded9c4'), disc(134, 128, 12, '#e2ddc9'), disc(126, 98, 6, '#e2ddc9'));

  // The town: houses with gables and towers, and the same houses' windows as a layer of their own.
  const houses: string[] = [];
  const windows: string[] = [];
  for (let x = -10; x < 900; ) {
    const w = 42 + rnd() * 46;
    const h = 46 + rnd() * 92 * (1 - Math.abs(x - 400) / 900);
    const y = horizon + 6 - h;
    houses.push(shape(`M${px(x)} ${horizon + 8}V${px(y)}L${px(x + w / 2)} ${px(y - 10 - rnd() * 26)}L${px(x + w)} ${px(y)}V${horizon + 8}Z`, rnd() < 0.5 ? '#3b2f55' : '#463660'));
    for (let wy = y + 10; wy < horizon - 14; wy += 22)
      for (let wx = x + 8; wx < x + w - 12; wx += 17) if (rnd() < 0.55) windows.push(rect(wx, wy, 8, 11, rnd() < 0.75 ? '#ffd27a' : '#ffb35c'));
    x += w + 1;
  }
  const hill = (x: number): number => horizon - 60 - 50 * Math.sin(x / 260) - 22 * Math.sin(x / 97 + 2);
  const hills = ground(W, H, '#6a4778', hill);
  const nightTown = ground(W, H, '#23264f', hill).replace('</svg>', `${houses.join('').replaceAll('#3b2f55', '#171934').replaceAll('#463660', '#1c1f3e')}</svg>`);

  const sea = svg(W, H - horizon, gradient('g', 'linear', '0 #f0a27a', '0.25 #a4608a', '1 #2a2a5c'), rect(0, 0, W, H, 'url(#g)'));
  const nightSea = svg(W, H - horizon, gradient('g', 'linear', '0 #2c4578', '1 #0a1330'), rect(0, 0, W, H, 'url(#g)'));
  const glints = (colour: string): string =>
    svg(260, 200, ...times(15, (i) => `<ellipse cx="130" cy="${8 + i * 12.5}" rx="${px((16 + i * 7) * (0.55 + rnd() * 0.45))}" ry="2.6" fill="${colour}" opacity="${(0.85 - i * 0.045).toFixed(2)}"/>`));
  const wave = (period: number, lift: number, fill: string): string =>
    ground(W + period, 260, fill, (x) => 14 + lift * Math.abs(Math.sin((Math.PI * x) / period)) ** 1.3 * -1 + lift);

  const sailboat = (sail: string, jib: string): string =>
    svg(240, 240,
      shape('M118 18L118 168L34 168Q92 104 118 18Z', sail), shape('M124 34Q146 110 196 166L124 168Z', jib),
      rect(117, 10, 5, 172, '#2a1c28'), shape('M22 180H214L190 212Q120 224 46 212Z', '#40232f'), rect(24, 180, 188, 6, '#f0d7b0'));
  const rowboat = svg(150, 110, rect(66, 8, 3, 62, '#15182c'), shape('M14 66H138L122 90Q74 98 30 90Z', '#15182c'), disc(68, 14, 6, '#ffdf9a'),
    gradient('g', 'radial', '0 #ffd88a 0.6', '1 #ffd88a 0'), disc(68, 14, 13, 'url(#g)'));

  const lighthouse = svg(330, 440,
    shape('M0 440Q30 356 110 348Q160 322 226 338Q290 350 330 400V440Z', '#231d38'),
    shape('M126 340L142 120H188L204 340Z', '#f3e6dc'),
    ...[150, 216, 282].map((y) => shape(`M${px(139.8 - (y - 150) / 13.75)} ${y}H${px(190.2 + (y - 150) / 13.75)}L${px(192.6 + (y - 150) / 13.75)} ${y + 33}H${px(137.4 - (y - 150) / 13.75)}Z`, '#c8464a')),
    rect(132, 112, 66, 10, '#2a2440'), rect(146, 78, 38, 34, '#ffe9a8'), rect(146, 78, 4, 34, '#2a2440'), rect(163, 78, 4, 34, '#2a2440'), rect(180, 78, 4, 34, '#2a2440'),
    shape('M138 80L165 48L192 80Z', '#c8464a'), disc(165, 46, 5, '#2a2440'), rect(157, 300, 18, 34, '#2a2440'), rect(158, 200, 12, 16, '#ffd27a'));
  const beam = svg(1400, 1400,
    `<defs><linearGradient id="l" x1="1" y1="0" x2="0" y2="0"><stop offset="0" stop-color="#fff0b8" stop-opacity=".75"/><stop offset="1" stop-color="#fff0b8" stop-opacity="0"/></linearGradient></defs>`,
    shape('M700 694L0 610V790L700 706Z', 'url(#l)'));
  const gulls = svg(320, 90, ...[[20, 30], [96, 12], [150, 52], [230, 26], [280, 66]].map(([x = 0, y = 0]) => `<path d="M${x} ${y}q10 -12 17 0q7 -12 17 0" fill="none" stroke="#2b2140" stroke-width="3.4"/>`));

  return [
    { svg: sky },
    { svg: sun, x: '330', y: '120+3.4*t' },
    { svg: night, filter: fadeIn(30, 76) },
    { svg: moon, x: '900-0.8*t', y: '430-5.2*max(0,t-62)' },
    { svg: gulls, x: '-340+34*t', y: '110+14*sin(t*0.9)' },
    { svg: hills },
    { svg: svg(W, H, ...houses) },
    { svg: nightTown, filter: fadeIn(32, 74) },
    { svg: svg(W, H, ...windows), filter: fadeIn(34, 58) },
    { svg: sea, y: String(horizon) },
    { svg: glints('#ffe2a0'), x: '360+5*sin(t*1.3)', y: String(horizon + 4) },
    { svg: nightSea, y: String(horizon), filter: fadeIn(32, 74) },
    { svg: glints('#dfe9ff'), x: '890-0.8*t+5*sin(t*1.1)', y: String(horizon + 4), filter: fadeIn(84, 98) },
    { svg: wave(160, 9, '#4a4380'), x: '-160+mod(t*16,160)', y: '478+3*sin(t*0.8)' },
    { svg: sailboat('#d9534a', '#f1e1c6'), filter: 'rotate=a=0.05*sin(t*1.1):c=none', x: '-280+mod(t*26,1640)', y: '318+5*sin(t*0.9)' },
    { svg: wave(220, 13, '#353470'), x: '-mod(t*22,220)', y: '536+4*sin(t*0.7+1)' },
    { svg: beam, filter: `rotate=a=0.42*sin(t*0.55)-0.06:c=none,${fadeIn(50, 60)}`, x: '417', y: '-415' },
    { svg: lighthouse, x: '952', y: '190' },
    { svg: rowboat, filter: 'rotate=a=0.06*sin(t*1.4+1):c=none', x: '1000-mod(max(0,t-66)*20,1500)', y: 'if(lt(t,66),800,500+5*sin(t*1.2))' },
    { svg: wave(300, 18, '#232656'), x: '-300+mod(t*34,300)', y: '590+5*sin(t*0.9+2)' },
    { svg: wave(360, 20, '#171b42'), x: '-mod(t*46,360)', y: '644+5*sin(t*0.8+4)' },
  ];
}

function drawMeadow(): Layer[] {
  const rnd = chance(11);
  const sky = svg(W, H, gradient('g', 'linear', '0 #6fb7e9', '0.6 #d8eef5', '0.75 #fff0cf'), rect(0, 0, W, H, 'url(#g)'));
  const sun = svg(420, 420, gradient('g', 'radial', '0 #fffbe0', '0.28 #fff3b0', '0.3 #ffeeb0 0.55', '1 #ffeeb0 0'), disc(210, 210, 210, 'url(#g)'));
  const cloud = (scale: number): string =>
    svg(340 * scale, 130 * scale, `<g transform="scale(${scale})" fill="#ffffff" opacity=".92">`, ...[[80, 84, 40], [136, 60, 52], [200, 56, 46], [254, 84, 40]].map(([x = 0, y = 0, r = 0]) => `<circle cx="${x}" cy="${y}" r="${r}"/>`), `<rect x="44" y="78" width="248" height="46" rx="23"/></g>`);

  const far = ground(W + 200, H, '#9cc3c9', (x) => 400 - 70 * Math.sin(x / 210) - 34 * Math.sin(x / 83 + 1));
  const slope = (x: number): number => 470 - 44 * Math.sin(x / 240 + 2.1) - 16 * Math.sin(x / 110);
  const tree = (x: number, y: number, s: number): string => rect(x - 4 * s, y - 30 * s, 8 * s, 34 * s, '#6b4a34') + disc(x, y - 52 * s, 27 * s, '#4f8a4b') + disc(x - 16 * s, y - 38 * s, 20 * s, '#478045') + disc(x + 17 * s, y - 38 * s, 20 * s, '#5a9653');
  const woods = times(17, () => rnd() * 1700).sort((a, b) => a - b).map((x) => tree(x, slope(x) + 4, 0.6 + rnd() * 0.5));
  const mid = ground(W + 480, H, '#8fbf6a', slope, ...woods);
  const rise = (x: number): number => 560 - 40 * Math.sin(x / 310 + 0.4);
  const sheep = times(9, () => 80 + rnd() * 1900).map((x) => {
    const y = rise(x) + 26 + rnd() * 40;
    return rect(x - 14, y + 8, 4, 14, '#37312f') + rect(x + 10, y + 8, 4, 14, '#37312f') + `<ellipse cx="${px(x)}" cy="${px(y)}" rx="25" ry="16" fill="#fbf8ee"/>` + disc(x + 24, y - 6, 9, '#37312f');
  });
  const near = ground(W + 880, H, '#6fa84f', rise).replace('</svg>', `${sheep.join('')}</svg>`);
  const petals = ['#f2545b', '#ffd23f', '#ffffff', '#b07bd8'];
  const flower = (x: number, y: number, s: number, fill: string): string =>
    `<path d="M${px(x)} ${px(y)}V${px(y + 90)}" stroke="#2f6b35" stroke-width="4"/>` + times(5, (i) => disc(x + Math.cos(i * 1.2566) * 11 * s, y + Math.sin(i * 1.2566) * 11 * s, 9 * s, fill)).join('') + disc(x, y, 6.5 * s, fill === '#ffd23f' ? '#b5651d' : '#ffcf33');
  const width = W + 2000;
  const flowers = times(52, (i) => flower(30 + i * 62 + rnd() * 36, 600 + rnd() * 60, 0.8 + rnd() * 0.6, petals[Math.floor(rnd() * 4)] ?? '#ffffff'));
  const front = ground(width, H, '#4d8a3f', (x) => 668 - 10 * Math.sin(x / 140), ...flowers);

  const mill = svg(200, 330, shape('M58 330L78 96H122L142 330Z', '#f2e7d5'), shape('M70 100Q100 34 130 100Z', '#a8503d'), rect(88, 270, 24, 60, '#6b4a34'), rect(90, 150, 20, 24, '#5f86a0'), rect(88, 214, 20, 24, '#5f86a0'));
  const blades = svg(360, 360, ...times(4, (i) => `<g transform="rotate(${i * 90} 180 180)"><rect x="177" y="14" width="6" height="168" fill="#6b4a34"/><rect x="184" y="18" width="30" height="120" fill="#fffaf0" stroke="#6b4a34" stroke-width="3"/></g>`), disc(180, 180, 11, '#6b4a34'));
  const balloon = (a: string, b: string): string =>
    svg(190, 280, disc(95, 95, 92, a), `<ellipse cx="95" cy="95" rx="58" ry="92" fill="${b}"/><ellipse cx="95" cy="95" rx="24" ry="92" fill="${a}"/>`, shape('M26 156L76 226H114L164 156Q95 214 26 156Z', a), `<path d="M78 226L82 246M112 226L108 246" stroke="#5a4030" stroke-width="3"/>`, rect(78, 244, 34, 26, '#8a5a34'));

  return [
    { svg: sky },
    { svg: sun, x: '820', y: '20' },
    { svg: cloud(1), x: '120-7*t', y: '150' },
    { svg: cloud(0.7), x: '620-5*t', y: '92' },
    { svg: cloud(1.2), x: '1040-9*t', y: '210' },
    { svg: cloud(0.8), x: '1440-7*t', y: '130' },
    { svg: far, x: '-4*t' },
    { svg: balloon('#e4572e', '#ffc857'), x: '740-2*t', y: '240-5*t+7*sin(t*0.7)' },
    { svg: balloon('#3d5a98', '#f0f0e8'), x: '1130-11*t', y: '150-2.4*t+9*sin(t*0.6+2)' },
    { svg: mid, x: '-10*t' },
    { svg: mill, x: '1000-10*t', y: '214' },
    { svg: blades, filter: 'rotate=a=t*0.9:c=none', x: '920-10*t', y: '136' },
    { svg: near, x: '-20*t' },
    { svg: front, x: '-46*t' },
  ];
}

function drawTunnel(): Layer[] {
  // A road tunnel in true perspective. The lamps repeat every four arches, so 72 drawings (three seconds) are a loop.
  const frames = 72;
  const width = W + 80;
  const height = H + 46;
  const neon = ['#35e0d0', '#ff5fa2', '#ffb347', '#8f7bff'];
  const place = (x: number, y: number, z: number): [number, number] => {
    const s = 430 / z;
    return [width / 2 + x * s + 9 * Math.max(0, z - 1) ** 1.15, height / 2 - 20 + y * s];
  };
  const point = (x: number, y: number, z: number): string => place(x, y, z).map(px).join(' ');
  const arch = (z: number, close: boolean): string => {
    const curve = times(19, (i) => Math.PI * (1 + i / 18)).map((a) => point(Math.cos(a) * 1.25, Math.sin(a) * 1.05 + 0.1, z));
    return `M${point(-1.25, 0.62, z)}L${curve.join('L')}L${point(1.25, 0.62, z)}${close ? 'Z' : ''}`;
  };
  const strip = (left: number, right: number): string => {
    const depths = times(24, (i) => 0.4 * 1.16 ** i);
    return `M${[...depths.map((z) => point(left, 0.62, z)), ...depths.reverse().map((z) => point(right, 0.62, z))].join('L')}Z`;
  };
  const mix = (near: number[], far: number[], k: number): string => `rgb(${near.map((c, i) => Math.round(c + ((far[i] ?? 0) - c) * k)).join(',')})`;
  const draw = (frame: number): string => {
    const travelled = (frame / frames) * 4; // arches
    const body = [rect(0, 0, width, height, '#181a33')];
    const depth = (z: number): number => Math.min(1, Math.max(0, (z - 0.6) / 9));
    for (let i = 0; i < 48; i++) {
      const z = 0.25 + (i + Math.ceil(travelled * 4) - travelled * 4) / 4;
      const panel = (i + Math.ceil(travelled * 4)) % 2 === 0 ? 0 : 7;
      body.push(shape(arch(z, true), mix([34 + panel, 32 + panel, 74 + panel], [168, 120, 190], depth(z))));
    }
    body.push(shape(strip(-1.25, 1.25), '#1b1c36'));
    for (const x of [-1.08, 1.08]) body.push(shape(strip(x - 0.025, x + 0.025), '#d8d4f0'));
    for (let i = 13; i >= 0; i--) {
      const z = i - (travelled % 1);
      const [from, to] = [Math.max(0.3, z + 0.1), z + 0.55];
      if (to > from) body.push(shape(`M${point(-0.03, 0.62, from)}L${point(-0.03, 0.62, to)}L${point(0.03, 0.62, to)}L${point(0.03, 0.62, from)}Z`, '#fff1c4'));
    }
    for (let i = 15; i >= -4; i--) {
      const z = i - travelled + 4;
      if (z < 0.3 || z > 11.8) continue;
      const colour = neon[(i + 4) % 4] ?? '#ffffff';
      for (const [stroke, opacity] of [[34, 0.2], [9, 1]] as const)
        body.push(shape(arch(z, false), 'none', `stroke="${colour}" stroke-width="${px((stroke * 1.4) / z)}" stroke-opacity="${opacity}" stroke-linejoin="round"`));
    }
    const [ex, ey] = place(0, 0, 11.5);
    body.push(gradient('e', 'radial', '0 #fffdf0', '0.3 #ffe9c0 0.7', '1 #ffe9c0 0'), disc(ex, ey, 74, 'url(#e)'));
    return svg(width, height, ...body);
  };
  const exit = svg(1400, 1400, gradient('g', 'radial', '0 #fffef8', '0.35 #fff6dd 0.9', '1 #fff0cc 0'), disc(700, 700, 700, 'url(#g)'));
  return [
    { svg: times(frames, draw), x: '-40+40*sin(t*0.7)', y: '-23+23*sin(t*0.45)' },
    { svg: exit, filter: fadeIn(22, 29), x: '40+40*sin(t*0.7)', y: '-340+23*sin(t*0.45)' },
  ];
}

/** Draw a title's layers and let ffmpeg move them: a lossless picture at the size of the largest rendition. */
async function render(title: Title, work: string): Promise<string> {
  const file = join(work, 'picture.mkv');
  if (await exists(file)) return file;
  const inputs: string[] = ['-f', 'lavfi', '-i', `color=black:s=${W}x${H}:r=${FPS}:d=${title.seconds}`];
  const graph: string[] = ['[0:v]format=yuv444p[p0]'];
  for (const [i, layer] of title.layers().entries()) {
    const drawings = Array.isArray(layer.svg) ? layer.svg : [layer.svg];
    await Promise.all(drawings.map((text, n) => writeFile(join(work, `layer-${i}-${String(n).padStart(3, '0')}.svg`), text)));
    inputs.push('-thread_queue_size', '128', '-framerate', String(FPS), '-i', join(work, `layer-${i}-%03d.svg`));
    // librsvg premultiplies; overlay and fade want straight alpha.
    const moving = layer.filter !== undefined || drawings.length > 1;
    const repeat = moving ? `,loop=-1:${drawings.length}:0,setpts=N/${FPS}/TB` : '';
    graph.push(`[${i + 1}:v]format=gbrap,unpremultiply=inplace=1,format=yuva444p${repeat}${layer.filter === undefined ? '' : `,${layer.filter}`}[l${i}]`);
    const shortest = moving ? ':shortest=1' : '';
    graph.push(`[p${i}][l${i}]overlay=x='${layer.x ?? '0'}':y='${layer.y ?? '0'}':format=yuv444${shortest}[p${i + 1}]`);
  }
  const shade = title.ink.startsWith('#f') ? 'black@0.45' : 'white@0.5';
  const text = (what: string, font: string, size: number, x: string, y: string): string =>
    `drawtext=${what}:font='${font}':fontsize=${size}:fontcolor=${title.ink}:shadowcolor=${shade}:shadowx=2:shadowy=2:x='${x}':y='${y}'`;
  const finish = [
    ...(title.finish === undefined ? [] : [title.finish]),
    text(`text='${title.name}'`, 'DejaVu Serif', 88, '60+10*sin(t*0.5)', '40'),
    text(`text='${title.line}'`, 'DejaVu Sans', 32, '64+10*sin(t*0.5)', '142'),
    `drawbox=x=56:y=628:w=330:h=60:color=black@0.55:t=fill`,
    `drawtext=timecode='00\\:00\\:00\\:00':rate=${FPS}:font='DejaVu Sans Mono':fontsize=44:fontcolor=white:x=74:y=640`,
    `scale=${W / 2}:${H / 2}:flags=area`,
    'format=yuv420p',
  ];
  graph.push(`[p${title.layers().length}]${finish.join(',')}[out]`);
  const script = join(work, 'graph.txt');
  await writeFile(script, graph.join(';\n'));
  await ffmpeg([...inputs, '-filter_complex_script', script, '-map', '[out]', '-c:v', 'libx264', '-preset', 'ultrafast', '-qp', '0'], file);
  return file;
}

// ----------------------------------------------------------------------------------------------------------- sound

/** A music box: semitones above `base` Hz, one every `step` seconds. */
interface Melody {
  step: number;
  base: number;
  notes: number[];
  overtone: number; // loudness of the octave above, which is what tells the instruments apart
}

function melody({ step, base, notes, overtone }: Melody): string {
  const pick = notes.map((note, i) => `eq(ld(0),${i})*${note}`).join('+');
  const ring = 'min(1,ld(1)*60)*exp(-3.2*ld(1))';
  return [
    `st(0,mod(floor(t/${step}),${notes.length}));st(1,mod(t,${step}));st(2,2*PI*${base}*pow(2,(${pick})/12))`,
    `0.3*${ring}*(1-ld(1)/${step})*(sin(ld(2)*ld(1))+${overtone}*sin(2*ld(2)*ld(1)))+0.05*sin(PI*${base}*t)*(0.7+0.3*sin(t))`,
  ].join(';');
}

// -------------------------------------------------------------------------------------------------------- encoding

async function encode(title: Title, work: string): Promise<Made> {
  const made: Made = { video: new Map(), audio: new Map(), work };
  say(title, 'drawing');
  const picture = await render(title, work);
  for (const r of title.renditions) {
    const file = join(work, `${r.name}-${r.crf}.mp4`);
    made.video.set(r.name, file);
    if (await exists(file)) continue;
    say(title, `encoding ${r.name}`);
    const gop = title.segment * FPS;
    const label = `drawtext=text='${r.name}':font='DejaVu Sans':fontsize=${Math.round(r.height / 17)}:fontcolor=white@0.85:shadowcolor=black@0.5:shadowx=1:shadowy=1:x=w-tw-${Math.round(r.height / 15)}:y=h-${Math.round(r.height / 9)}`;
    await ffmpeg([
      '-i', picture, '-vf', `scale=${r.width}:${r.height}:flags=lanczos,setsar=1,${label}`, '-an',
      '-c:v', 'libx264', '-preset', 'slow', '-profile:v', r.profile, '-level', r.level, '-pix_fmt', 'yuv420p',
      '-crf', String(r.crf), '-maxrate', `${r.maxrate}k`, '-bufsize', `${r.maxrate * 2}k`, '-g', String(gop), '-keyint_min', String(gop), '-sc_threshold', '0',
      // No B-frames: decode order is presentation order, so no track needs an edit list or negative offsets, which players
      // and ffmpeg's DASH reader treat differently. That costs 8 %. Units of type 6 are x264's own signature.
      '-x264-params', 'open-gop=0:aq-mode=3:bframes=0', '-bsf:v', 'filter_units=remove_types=6',
    ], file);
  }
  for (const [language, tune] of Object.entries(title.sound)) {
    const file = join(work, `${language}.aac`);
    made.audio.set(language, file);
    if (await exists(file)) continue;
    say(title, `playing ${language}`);
    // AAC puts one frame of silence first: leave one out at the end, so that sound and picture are equally long. ADTS has
    // no edit list to say so, hence neither have the titles, and every track starts at 0 for every player.
    const seconds = title.seconds - 1024 / AUDIO_RATE;
    await ffmpeg(['-f', 'lavfi', '-i', `aevalsrc='${melody(tune)}':s=${AUDIO_RATE}:d=${seconds}`, '-c:a', 'aac', '-b:a', '32k', '-ac', '1'], file);
  }
  return made;
}

// ---------------------------------------------------------------------------------------- reading what ffmpeg wrote

interface Box {
  type: string;
  at: number;
  size: number;
  body: Buffer;
}

/** The ISO BMFF boxes side by side in a buffer. */
function boxes(data: Buffer): Box[] {
  const found: Box[] = [];
  for (let at = 0; at + 8 <= data.length; ) {
    const size = data.readUInt32BE(at);
    if (size < 8) throw new Error(`box of ${size} bytes at ${at}`);
    found.push({ type: data.toString('latin1', at + 4, at + 8), at, size, body: data.subarray(at + 8, at + size) });
    at += size;
  }
  return found;
}

function find(data: Buffer, ...path: string[]): Buffer {
  for (const type of path) {
    const box = boxes(data).find((b) => b.type === type);
    if (box === undefined) throw new Error(`no ${path.join('/')} box`);
    data = box.body;
  }
  return data;
}

interface Track {
  timescale: number;
  codec: string; // as RFC 6381 writes it
}

function track(file: Buffer): Track {
  const media = find(file, 'moov', 'trak', 'mdia');
  const mdhd = find(media, 'mdhd');
  const entry = boxes(find(media, 'minf', 'stbl', 'stsd').subarray(8))[0];
  const codec = entry?.type === 'avc1' ? `avc1.${find(entry.body.subarray(78), 'avcC').toString('hex', 1, 4)}` : 'mp4a.40.2';
  return { timescale: mdhd.readUInt32BE(mdhd[0] === 1 ? 20 : 12), codec };
}

interface Fragment {
  at: number; // of the moof in the file
  start: number; // decode time, in the track's timescale
  duration: number;
  firstSampleEnd: number; // where the first sample's bytes stop, from the start of the file
}

/** The movie fragments of a file with one track, from tfhd, tfdt and trun (ISO/IEC 14496-12, 8.8). */
function fragments(file: Buffer): Fragment[] {
  return boxes(file).filter((b) => b.type === 'moof').map((moof) => {
    const tfhd = find(moof.body, 'traf', 'tfhd');
    const tfdt = find(moof.body, 'traf', 'tfdt');
    const trun = find(moof.body, 'traf', 'trun');
    const has = tfhd.readUIntBE(1, 3);
    let at = 8 + (has & 1 ? 8 : 0) + (has & 2 ? 4 : 0);
    let duration = has & 8 ? tfhd.readUInt32BE(at) : 0;
    at += has & 8 ? 4 : 0;
    let size = has & 16 ? tfhd.readUInt32BE(at) : 0;
    const flags = trun.readUIntBE(1, 3);
    const count = trun.readUInt32BE(4);
    const dataOffset = trun.readInt32BE(8);
    at = 12 + (flags & 4 ? 4 : 0);
    let total = 0;
    let first = 0;
    for (let i = 0; i < count; i++) {
      if (flags & 0x100) { duration = trun.readUInt32BE(at); at += 4; }
      if (flags & 0x200) { size = trun.readUInt32BE(at); at += 4; }
      at += (flags & 0x400 ? 4 : 0) + (flags & 0x800 ? 4 : 0);
      total += duration;
      if (i === 0) first = size;
    }
    const start = tfdt[0] === 1 ? Number(tfdt.readBigUInt64BE(4)) : tfdt.readUInt32BE(4);
    return { at: moof.at, start, duration: total, firstSampleEnd: moof.at + dataOffset + first };
  });
}

interface Piece {
  bytes: number;
  seconds: number;
}

/** Peak and mean rate in bit/s; a short last piece does not count for the peak. */
function rate(pieces: Piece[]): { peak: number; mean: number } {
  const seconds = sum(pieces.map((p) => p.seconds));
  const longest = Math.max(...pieces.map((p) => p.seconds));
  const peaks = pieces.filter((p) => p.seconds >= longest / 2).map((p) => (p.bytes * 8) / p.seconds);
  return { peak: Math.ceil(Math.max(...peaks)), mean: Math.ceil((sum(pieces.map((p) => p.bytes)) * 8) / seconds) };
}

// ---------------------------------------------------------------------------------------- writing HLS and DASH text

const LANGUAGES: Record<string, string> = { en: 'English', fr: 'Français' };

function mediaPlaylist(pieces: Piece[], head: string[], lines: (i: number) => string[]): string {
  const target = Math.ceil(Math.max(...pieces.map((p) => p.seconds)) - 0.5); // EXTINF rounded to the nearest second
  return [
    '#EXTM3U', '#EXT-X-VERSION:7', `#EXT-X-TARGETDURATION:${target}`, '#EXT-X-MEDIA-SEQUENCE:1', '#EXT-X-PLAYLIST-TYPE:VOD', '#EXT-X-INDEPENDENT-SEGMENTS', ...head,
    ...pieces.flatMap((p, i) => [`#EXTINF:${p.seconds.toFixed(6)},`, ...lines(i)]),
    '#EXT-X-ENDLIST', '',
  ].join('\n');
}

function variant(r: Rendition, uri: string, codecs: string[], pieces: Piece[], audio: Piece[][], more: string[] = []): string[] {
  const video = rate(pieces);
  const sound = audio.map(rate);
  const attributes = [
    `BANDWIDTH=${video.peak + Math.max(0, ...sound.map((s) => s.peak))}`,
    `AVERAGE-BANDWIDTH=${video.mean + Math.max(0, ...sound.map((s) => s.mean))}`,
    `CODECS="${codecs.join(',')}"`, `RESOLUTION=${r.width}x${r.height}`, `FRAME-RATE=${FPS.toFixed(3)}`, `STABLE-VARIANT-ID="${r.name}"`, ...more,
  ];
  return [`#EXT-X-STREAM-INF:${attributes.join(',')}`, uri];
}

const audioGroup = (language: string, uri: string, first: boolean): string =>
  `#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="${LANGUAGES[language]}",LANGUAGE="${language}",DEFAULT=${first ? 'YES' : 'NO'},AUTOSELECT=YES,CHANNELS="1",STABLE-RENDITION-ID="${language}",URI="${uri}"`;

const master = (...lines: string[]): string => ['#EXTM3U', '#EXT-X-VERSION:7', '#EXT-X-INDEPENDENT-SEGMENTS', '', ...lines, ''].join('\n');

function mpd(title: Title, profile: string, ...sets: string[]): string {
  return `<?xml version="1.0" encoding="UTF-8"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-${profile}:2011" type="static" mediaPresentationDuration="PT${title.seconds}S" minBufferTime="PT${title.segment * 2}S">
  <ProgramInformation><Title>${title.name}</Title></ProgramInformation>
  <Period id="0" start="PT0S" duration="PT${title.seconds}S">
${sets.join('\n')}
  </Period>
</MPD>
`;
}

const videoSet = (inner: string): string => `    <AdaptationSet id="1" contentType="video" mimeType="video/mp4" segmentAlignment="true" subsegmentAlignment="true" startWithSAP="1" subsegmentStartsWithSAP="1" maxWidth="640" maxHeight="360" par="16:9" frameRate="${FPS}">
      <Role schemeIdUri="urn:mpeg:dash:role:2011" value="main"/>
${inner}
    </AdaptationSet>`;

const audioSet = (id: number, language: string, inner: string): string => `    <AdaptationSet id="${id}" contentType="audio" mimeType="audio/mp4" lang="${language}" startWithSAP="1" subsegmentStartsWithSAP="1">
      <Label>${LANGUAGES[language]}</Label>
      <Role schemeIdUri="urn:mpeg:dash:role:2011" value="${id === 2 ? 'main' : 'dub'}"/>
      <AudioChannelConfiguration schemeIdUri="urn:mpeg:dash:23003:3:audio_channel_configuration:2011" value="1"/>
${inner}
    </AdaptationSet>`;

const representation = (r: Rendition, codec: string, pieces: Piece[], inner = ''): string =>
  `      <Representation id="${r.name}" codecs="${codec}" bandwidth="${rate(pieces).peak}" width="${r.width}" height="${r.height}" sar="1:1"${inner === '' ? '/>' : `>${inner}</Representation>`}`;

// ------------------------------------------------------------------------------------------------ harbor: segments

async function packSegments(title: Title, made: Made, out: string): Promise<void> {
  const video = new Map<string, Segmented>();
  const audio = new Map<string, Segmented>();
  for (const [name, file] of made.video) video.set(name, await cutSegments(title, file, join(out, 'video', name)));
  for (const [language, file] of made.audio) audio.set(language, await cutSegments(title, file, join(out, 'audio', language)));
  const starts = [...video.values()].map((v) => JSON.stringify([v.timescale, v.timeline]));
  if (new Set(starts).size !== 1) throw new Error(`${title.id}: renditions are not aligned`);

  // Subtitles: one WebVTT file, which is one HLS segment and one DASH BaseURL.
  await mkdir(join(out, 'text/en'), { recursive: true });
  const cues = HARBOR_LINES.map((line, i) => `${i + 1}\n${clock(i * 8 + 1)} --> ${clock(i * 8 + 7)}\n${line}\n`);
  const vtt = `WEBVTT\n\n${cues.join('\n')}`;
  await writeFile(join(out, 'text/en/subtitles.vtt'), vtt);
  await writeFile(join(out, 'text/en/index.m3u8'), mediaPlaylist([{ bytes: vtt.length, seconds: title.seconds }], [], () => ['subtitles.vtt']));

  // Key frames of the smallest rendition: from each moof to the end of the first sample.
  const [smallest] = title.renditions as [Rendition];
  const trick: { at: number; piece: Piece }[] = [];
  const small = video.get(smallest.name) as Segmented;
  for (const [i, piece] of small.pieces.entries()) {
    const [fragment] = fragments(await readFile(join(out, 'video', smallest.name, segmentName(i)))) as [Fragment];
    trick.push({ at: fragment.at, piece: { bytes: fragment.firstSampleEnd - fragment.at, seconds: piece.seconds } });
  }
  await writeFile(join(out, 'video', smallest.name, 'iframes.m3u8'),
    mediaPlaylist(trick.map((t) => t.piece), ['#EXT-X-I-FRAMES-ONLY', '#EXT-X-MAP:URI="init.mp4"'], (i) => [`#EXT-X-BYTERANGE:${trick[i]?.piece.bytes}@${trick[i]?.at}`, segmentName(i)]));
  const trickRate = rate(trick.map((t) => t.piece));

  const sounds = [...audio.values()].map((a) => a.pieces);
  await writeFile(join(out, 'master.m3u8'), master(
    ...[...audio.keys()].map((language, i) => audioGroup(language, `audio/${language}/index.m3u8`, i === 0)),
    '#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="text",NAME="English",LANGUAGE="en",DEFAULT=NO,AUTOSELECT=YES,FORCED=NO,STABLE-RENDITION-ID="text-en",URI="text/en/index.m3u8"',
    '',
    ...title.renditions.flatMap((r) => {
      const v = video.get(r.name) as Segmented;
      return variant(r, `video/${r.name}/index.m3u8`, [v.codec, 'mp4a.40.2'], v.pieces, sounds, ['AUDIO="audio"', 'SUBTITLES="text"']);
    }),
    '',
    `#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=${trickRate.peak},AVERAGE-BANDWIDTH=${trickRate.mean},CODECS="${small.codec}",RESOLUTION=${smallest.width}x${smallest.height},STABLE-VARIANT-ID="${smallest.name}-iframes",URI="video/${smallest.name}/iframes.m3u8"`,
  ));

  await writeFile(join(out, 'manifest.mpd'), mpd(title, 'live',
    videoSet(`${template('video', small)}\n${title.renditions.map((r) => representation(r, video.get(r.name)?.codec ?? '', video.get(r.name)?.pieces ?? [])).join('\n')}`),
    ...[...audio].map(([language, a], i) => audioSet(2 + i, language, `${template('audio', a)}\n      <Representation id="${language}" codecs="${a.codec}" bandwidth="${rate(a.pieces).peak}" audioSamplingRate="${AUDIO_RATE}"/>`)),
    `    <AdaptationSet id="${2 + audio.size}" contentType="text" mimeType="text/vtt" lang="en">
      <Label>English</Label>
      <Role schemeIdUri="urn:mpeg:dash:role:2011" value="subtitle"/>
      <Representation id="text-en" bandwidth="${rate([{ bytes: vtt.length, seconds: title.seconds }]).mean}"><BaseURL>text/en/subtitles.vtt</BaseURL></Representation>
    </AdaptationSet>`));
}

/** ADTS repeats the decoder's configuration in every frame; MP4 wants it once. */
const configured = (file: string): string[] => (file.endsWith('.aac') ? ['-bsf:a', 'aac_adtstoasc'] : []);

interface Segmented extends Track {
  pieces: Piece[];
  timeline: { start: number; duration: number }[];
}

const clock = (seconds: number): string => new Date(seconds * 1000).toISOString().slice(11, 23);
const segmentName = (i: number): string => `seg-${String(i + 1).padStart(5, '0')}.m4s`;

/** Cut an MP4 into CMAF segments, measure them and write their HLS playlist. */
async function cutSegments(title: Title, file: string, folder: string): Promise<Segmented> {
  await mkdir(folder, { recursive: true });
  await ffmpeg([
    '-i', file, '-c', 'copy', ...configured(file), '-f', 'hls', '-hls_segment_type', 'fmp4', '-hls_time', String(title.segment), '-hls_list_size', '0', '-start_number', '1',
    '-hls_segment_options', 'movflags=+cmaf', '-hls_fmp4_init_filename', 'init.mp4', '-hls_segment_filename', join(folder, 'seg-%05d.m4s'),
  ], join(folder, 'index.m3u8'), false);
  const { timescale, codec } = track(await readFile(join(folder, 'init.mp4')));
  const names = (await readdir(folder)).filter((name) => name.endsWith('.m4s')).sort();
  const pieces: Piece[] = [];
  const timeline: Segmented['timeline'] = [];
  for (const name of names) {
    const data = await readFile(join(folder, name));
    const [fragment, ...others] = fragments(data);
    if (fragment === undefined || others.length > 0) throw new Error(`${name}: not one fragment`);
    timeline.push({ start: fragment.start, duration: fragment.duration });
    pieces.push({ bytes: data.length, seconds: fragment.duration / timescale });
  }
  await writeFile(join(folder, 'index.m3u8'), mediaPlaylist(pieces, ['#EXT-X-MAP:URI="init.mp4"'], (i) => [segmentName(i)]));
  return { timescale, codec, pieces, timeline };
}

function template(kind: string, { timescale, timeline }: Segmented): string {
  const runs: { start: number; duration: number; repeat: number }[] = [];
  for (const { start, duration } of timeline) {
    const last = runs.at(-1);
    if (last !== undefined && last.duration === duration) last.repeat += 1;
    else runs.push({ start, duration, repeat: 0 });
  }
  const list = runs.map((run, i) => `          <S${i === 0 ? ` t="${run.start}"` : ''} d="${run.duration}"${run.repeat > 0 ? ` r="${run.repeat}"` : ''}/>`);
  return `      <SegmentTemplate timescale="${timescale}" startNumber="1" initialization="${kind}/$RepresentationID$/init.mp4" media="${kind}/$RepresentationID$/seg-$Number%05d$.m4s">
        <SegmentTimeline>
${list.join('\n')}
        </SegmentTimeline>
      </SegmentTemplate>`;
}

// -------------------------------------------------------------------------------------------- meadow: byte ranges

async function packRanges(title: Title, made: Made, out: string): Promise<void> {
  await mkdir(join(out, 'video'), { recursive: true });
  await mkdir(join(out, 'audio'), { recursive: true });
  const video = new Map<string, Indexed>();
  const audio = new Map<string, Indexed>();
  for (const [name, file] of made.video) video.set(name, await writeIndexed(file, join(out, 'video', name), '+frag_keyframe'));
  for (const [language, file] of made.audio) audio.set(language, await writeIndexed(file, join(out, 'audio', language), '', title.segment));

  await writeFile(join(out, 'master.m3u8'), master(
    ...[...audio.keys()].map((language, i) => audioGroup(language, `audio/${language}.m3u8`, i === 0)),
    '',
    ...title.renditions.flatMap((r) => {
      const v = video.get(r.name) as Indexed;
      return variant(r, `video/${r.name}.m3u8`, [v.codec, 'mp4a.40.2'], v.pieces, [...audio.values()].map((a) => a.pieces), ['AUDIO="audio"']);
    }),
  ));
  const base = (uri: string, i: Indexed): string =>
    `\n        <BaseURL>${uri}</BaseURL>\n        <SegmentBase timescale="${i.timescale}" indexRange="${i.index.from}-${i.index.to}"><Initialization range="0-${i.init - 1}"/></SegmentBase>\n      `;
  await writeFile(join(out, 'manifest.mpd'), mpd(title, 'on-demand',
    videoSet(title.renditions.map((r) => representation(r, video.get(r.name)?.codec ?? '', video.get(r.name)?.pieces ?? [], base(`video/${r.name}.mp4`, video.get(r.name) as Indexed))).join('\n')),
    ...[...audio].map(([language, a], i) => audioSet(2 + i, language, `      <Representation id="${language}" codecs="${a.codec}" bandwidth="${rate(a.pieces).peak}" audioSamplingRate="${AUDIO_RATE}">${base(`audio/${language}.mp4`, a)}</Representation>`))));
}

interface Indexed extends Track {
  init: number; // bytes of ftyp and moov
  index: { from: number; to: number }; // the sidx, last byte included
  pieces: Piece[];
}

/** Write one fragmented MP4 with a global sidx and the HLS playlist that addresses it by byte range. */
async function writeIndexed(source: string, target: string, cut: string, seconds = 0): Promise<Indexed> {
  await ffmpeg(['-i', source, '-c', 'copy', ...configured(source), '-movflags', `${cut}+delay_moov+dash+cmaf+global_sidx+skip_trailer`, ...(seconds > 0 ? ['-frag_duration', String(seconds * 1_000_000)] : [])], `${target}.mp4`);
  const data = await readFile(`${target}.mp4`);
  const { timescale, codec } = track(data);
  const top = boxes(data);
  const moov = top.find((b) => b.type === 'moov') as Box;
  const [sidx, ...others] = top.filter((b) => b.type === 'sidx');
  if (sidx === undefined || others.length > 0) throw new Error(`${target}: not one sidx`);
  const wide = sidx.body[0] === 1;
  const scale = sidx.body.readUInt32BE(8);
  let at = wide ? 28 : 20;
  let offset = sidx.at + sidx.size + (wide ? Number(sidx.body.readBigUInt64BE(20)) : sidx.body.readUInt32BE(16));
  const offsets: number[] = [];
  const pieces: Piece[] = [];
  for (let left = sidx.body.readUInt16BE(at + 2), p = (at += 4); left > 0; left--, p += 12) {
    const bytes = sidx.body.readUInt32BE(p);
    offsets.push(offset);
    pieces.push({ bytes, seconds: sidx.body.readUInt32BE(p + 4) / scale });
    offset += bytes;
  }
  if (offset !== data.length) throw new Error(`${target}: the index ends at ${offset}, the file at ${data.length}`);
  const init = moov.at + moov.size;
  const uri = `${target.slice(dirname(target).length + 1)}.mp4`;
  await writeFile(`${target}.m3u8`, mediaPlaylist(pieces, [`#EXT-X-MAP:URI="${uri}",BYTERANGE="${init}@0"`], (i) => [`#EXT-X-BYTERANGE:${pieces[i]?.bytes}@${offsets[i]}`, uri]));
  return { timescale, codec, init, index: { from: sidx.at, to: sidx.at + sidx.size - 1 }, pieces };
}

// ------------------------------------------------------------------------------------------- tunnel: encrypted TS

async function packTransport(title: Title, made: Made, out: string): Promise<void> {
  // A key that everybody can read protects nothing: this is a sample of the format, not of key management.
  await mkdir(out, { recursive: true });
  await writeFile(join(out, 'key.bin'), 'larder-tunnel-16');
  const keyInfo = join(made.work, 'key-info.txt');
  await writeFile(keyInfo, `../key.bin\n${join(out, 'key.bin')}\n${'1a5de2'.padStart(32, '0')}\n`);
  const [sound] = [...made.audio.values()] as [string];
  const lines: string[] = [];
  for (const r of title.renditions) {
    const folder = join(out, r.name);
    const source = made.video.get(r.name) as string;
    await mkdir(folder, { recursive: true });
    await ffmpeg([
      '-i', source, '-i', sound, '-map', '0:v', '-map', '1:a', '-c', 'copy', '-f', 'hls', '-hls_time', String(title.segment), '-hls_list_size', '0', '-start_number', '1', '-hls_playlist_type', 'vod',
      '-hls_flags', 'independent_segments', '-hls_key_info_file', keyInfo, '-hls_segment_filename', join(folder, 'seg-%05d.ts'),
    ], join(folder, 'index.m3u8'), false);
    const durations = [...(await readFile(join(folder, 'index.m3u8'), 'utf8')).matchAll(/^#EXTINF:([\d.]+)/gm)].map((m) => Number(m[1]));
    const pieces: Piece[] = [];
    for (const [i, seconds] of durations.entries()) pieces.push({ bytes: (await stat(join(folder, `seg-${String(i + 1).padStart(5, '0')}.ts`))).size, seconds });
    lines.push(...variant(r, `${r.name}/index.m3u8`, [track(await readFile(source)).codec, 'mp4a.40.2'], pieces, []));
  }
  await writeFile(join(out, 'master.m3u8'), master(...lines).replace('VERSION:7', 'VERSION:6'));
}

// ------------------------------------------------------------------------------------------------------------ main

const sum = (numbers: number[]): number => numbers.reduce((a, b) => a + b, 0);
const exists = (file: string): Promise<boolean> => stat(file).then(() => true, () => false);
const say = (title: Title, what: string): void => console.error(`${title.id}: ${what}`);

/** Run ffmpeg on one thread and without anything in the output that depends on the day. */
async function ffmpeg(args: string[], out: string, whole = true): Promise<void> {
  // A file appears under its own name only when it is complete, so that --work never reuses half of one.
  const target = whole ? join(dirname(out), `part-${out.slice(dirname(out).length + 1)}`) : out;
  const all = ['-nostdin', '-hide_banner', '-loglevel', 'error', '-y', ...args, '-threads', '1', '-fflags', '+bitexact', '-flags', '+bitexact', '-map_metadata', '-1', target];
  await new Promise<void>((done, fail) => {
    const child = spawn('ffmpeg', all, { stdio: ['ignore', 'inherit', 'inherit'] });
    child.on('error', (error) => { fail(new Error(`ffmpeg does not start (${error.message}): install ffmpeg`)); });
    child.on('close', (code) => { if (code === 0) done(); else fail(new Error(`ffmpeg ended with ${code} making ${out}`)); });
  });
  if (whole) await rename(target, out);
}

async function sizeOf(folder: string): Promise<number> {
  const entries = await readdir(folder, { withFileTypes: true });
  return sum(await Promise.all(entries.map(async (e) => (e.isDirectory() ? sizeOf(join(folder, e.name)) : (await stat(join(folder, e.name))).size))));
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { out: { type: 'string' }, work: { type: 'string' } } });
  const unknown = positionals.find((id) => !TITLES.some((t) => t.id === id));
  if (unknown !== undefined) throw new Error(`no title ${unknown}: ${TITLES.map((t) => t.id).join(', ')}`);
  const out = resolve(values.out ?? join(dirname(fileURLToPath(import.meta.url)), 'titles'));
  const work = values.work === undefined ? await mkdtemp(join(tmpdir(), 'larder-media-')) : resolve(values.work);
  try {
    for (const title of TITLES.filter((t) => positionals.length === 0 || positionals.includes(t.id))) {
      await mkdir(join(work, title.id), { recursive: true });
      const made = await encode(title, join(work, title.id));
      say(title, 'packaging');
      await rm(join(out, title.id), { recursive: true, force: true });
      await title.pack(title, made, join(out, title.id));
      say(title, `${(await sizeOf(join(out, title.id))).toLocaleString('en')} bytes`);
    }
  } finally {
    if (values.work === undefined) await rm(work, { recursive: true, force: true });
  }
}

await main();
