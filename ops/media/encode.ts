// Encodes the drawings and melodies of a title: one lossless video, one H.264 file per rendition made from it, and one AAC file per
// language. Groups of pictures are closed, as long as a segment and without B-frames, so that packaging cuts without encoding
// again.

import { stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ffmpeg } from './ffmpeg.ts';
import { AUDIO_RATE, FPS, H, type EncodedTracks, type Melody, type Title, W } from './title.ts';

/** Encodes every track of a title. Files that exist in `work` are reused. */
export async function encode(title: Title, work: string, say: (what: string) => void): Promise<EncodedTracks> {
  const made: EncodedTracks = { video: new Map(), audio: new Map(), work };
  say('drawing');
  const picture = await render(title, work);
  for (const r of title.renditions) {
    const file = join(work, `${r.name}-${r.crf}.mp4`);
    made.video.set(r.name, file);
    if (await exists(file)) continue;
    say(`encoding ${r.name}`);
    const gop = title.segmentSeconds * FPS;
    const label = `drawtext=text='${r.name}':font='DejaVu Sans':fontsize=${Math.round(r.height / 17)}:fontcolor=white@0.85:shadowcolor=black@0.5:shadowx=1:shadowy=1:x=w-tw-${Math.round(r.height / 15)}:y=h-${Math.round(r.height / 9)}`;
    await ffmpeg([
      '-i', picture, '-vf', `scale=${r.width}:${r.height}:flags=lanczos,setsar=1,${label}`, '-an',
      '-c:v', 'libx264', '-preset', 'slow', '-profile:v', r.profile, '-level', r.level, '-pix_fmt', 'yuv420p',
      '-crf', String(r.crf), '-maxrate', `${r.maxrate}k`, '-bufsize', `${r.maxrate * 2}k`, '-g', String(gop), '-keyint_min', String(gop), '-sc_threshold', '0',
      // Without B-frames decode order is presentation order, so no track needs an edit list or negative offsets, which players
      // and ffmpeg's DASH demuxer treat differently. That costs 8 % of size. NAL units of type 6 hold x264's signature.
      '-x264-params', 'open-gop=0:aq-mode=3:bframes=0', '-bsf:v', 'filter_units=remove_types=6',
    ], file);
  }
  for (const [language, tune] of Object.entries(title.sound)) {
    const file = join(work, `${language}.aac`);
    made.audio.set(language, file);
    if (await exists(file)) continue;
    say(`playing ${language}`);
    // The AAC encoder prepends one frame of silence, so one frame is omitted at the end to keep audio and video equally long.
    // ADTS has no edit list, and the titles need none: every track starts at 0 for every player.
    const seconds = title.seconds - 1024 / AUDIO_RATE;
    await ffmpeg(['-f', 'lavfi', '-i', `aevalsrc='${melody(tune)}':s=${AUDIO_RATE}:d=${seconds}`, '-c:a', 'aac', '-b:a', '32k', '-ac', '1'], file);
  }
  return made;
}

/** Draws the layers of a title, which ffmpeg moves, into a lossless video at the size of the largest rendition. */
async function render(title: Title, work: string): Promise<string> {
  const file = join(work, 'picture.mkv');
  if (await exists(file)) return file;
  const inputs: string[] = ['-f', 'lavfi', '-i', `color=black:s=${W}x${H}:r=${FPS}:d=${title.seconds}`];
  const graph: string[] = ['[0:v]format=yuv444p[p0]'];
  for (const [i, layer] of title.layers().entries()) {
    const drawings = Array.isArray(layer.svg) ? layer.svg : [layer.svg];
    await Promise.all(drawings.map((text, n) => writeFile(join(work, `layer-${i}-${String(n).padStart(3, '0')}.svg`), text)));
    inputs.push('-thread_queue_size', '128', '-framerate', String(FPS), '-i', join(work, `layer-${i}-%03d.svg`));
    // librsvg yields premultiplied alpha, but overlay and fade require straight alpha.
    const moving = layer.filter !== undefined || drawings.length > 1;
    const repeat = moving ? `,loop=-1:${drawings.length}:0,setpts=N/${FPS}/TB` : '';
    graph.push(`[${i + 1}:v]format=gbrap,unpremultiply=inplace=1,format=yuva444p${repeat}${layer.filter === undefined ? '' : `,${layer.filter}`}[l${i}]`);
    const shortest = moving ? ':shortest=1' : '';
    graph.push(`[p${i}][l${i}]overlay=x='${layer.x ?? '0'}':y='${layer.y ?? '0'}':format=yuv444${shortest}[p${i + 1}]`);
  }
  const shade = title.textColor.startsWith('#f') ? 'black@0.45' : 'white@0.5';
  const text = (what: string, font: string, size: number, x: string, y: string): string =>
    `drawtext=${what}:font='${font}':fontsize=${size}:fontcolor=${title.textColor}:shadowcolor=${shade}:shadowx=2:shadowy=2:x='${x}':y='${y}'`;
  const finish = [
    ...(title.finish === undefined ? [] : [title.finish]),
    text(`text='${title.name}'`, 'DejaVu Serif', 88, '60+10*sin(t*0.5)', '40'),
    text(`text='${title.tagline}'`, 'DejaVu Sans', 32, '64+10*sin(t*0.5)', '142'),
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

/** A melody as an expression for aevalsrc: every note decays over a quiet drone. */
function melody({ step, base, notes, overtone }: Melody): string {
  const pick = notes.map((note, i) => `eq(ld(0),${i})*${note}`).join('+');
  const ring = 'min(1,ld(1)*60)*exp(-3.2*ld(1))';
  return [
    `st(0,mod(floor(t/${step}),${notes.length}));st(1,mod(t,${step}));st(2,2*PI*${base}*pow(2,(${pick})/12))`,
    `0.3*${ring}*(1-ld(1)/${step})*(sin(ld(2)*ld(1))+${overtone}*sin(2*ld(2)*ld(1)))+0.05*sin(PI*${base}*t)*(0.7+0.3*sin(t))`,
  ].join(';');
}

const exists = (file: string): Promise<boolean> => stat(file).then(() => true, () => false);
