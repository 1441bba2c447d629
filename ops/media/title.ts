// What a sample title is made of: its table row, the drawings and tunes it names, and what encoding leaves for packaging.
// The drawing board, the frame rate and the sample rate are the same for all of them.

export const FPS = 24;
export const W = 1280; // the drawing board; the largest rendition is half of it, so motion is smooth to half a pixel
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
  svg: string | string[]; // several drawings are a loop, one per frame
  filter?: string; // applied to the layer before it is laid down; needs its own frames, so the drawing is repeated
  x?: string; // expressions of t, in pixels of the drawing board
  y?: string;
}

/** A music box: semitones above `base` Hz, one every `step` seconds. */
export interface Melody {
  step: number;
  base: number;
  notes: number[];
  overtone: number; // loudness of the octave above, which is what tells the instruments apart
}

export interface Title {
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
  subtitles: string[]; // in English, one every eight seconds, shown for six
  pack: (title: Title, made: Made, out: string) => Promise<void>;
}

/** What encoding leaves for packaging: one plain MP4 per video rendition and per language. */
export interface Made {
  video: Map<string, string>;
  audio: Map<string, string>;
  work: string;
}
