// The description of a sample title, with its drawings and melodies, and the tracks that encoding passes on to packaging. Canvas,
// frame rate and sample rate are the same for every title.

export const FPS = 24;
export const W = 1280; // canvas; the largest rendition has half its size, so motion is smooth to half a pixel
export const H = 720;
export const AUDIO_RATE = 48_000;

export interface Rendition {
  name: string;
  width: number;
  height: number;
  crf: number;
  profile: 'main' | 'high';
  level: string;
  maxrate: number; // kbit/s
}

export interface Layer {
  svg: string | string[]; // several drawings form a loop, one per frame
  filter?: string; // applied to the layer before the overlay; the drawing is repeated, because filters need frames
  x?: string; // expressions of t, in pixels of the canvas
  y?: string;
}

/** Notes in semitones above `base` Hz, one every `step` seconds. */
export interface Melody {
  step: number;
  base: number;
  notes: number[];
  overtone: number; // loudness of the octave above, which distinguishes the instruments
}

export interface Title {
  id: string;
  name: string;
  tagline: string;
  seconds: number;
  segmentSeconds: number; // seconds; a closed GOP each
  textColor: string; // of name and tagline
  layers: () => Layer[];
  finish?: string; // filters on the whole picture, below the text
  renditions: Rendition[];
  sound: Record<string, Melody>; // by language
  subtitles: string[]; // in English, one every eight seconds, shown for six
  pack: (title: Title, made: EncodedTracks, out: string) => Promise<void>;
}

/** The tracks that packaging takes from encoding: one file per video rendition and one per language. */
export interface EncodedTracks {
  video: Map<string, string>;
  audio: Map<string, string>;
  work: string;
}
