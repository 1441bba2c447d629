// Synthetic request traces, generated from a seed, so that a run can be repeated. Objects are numbered from 0 and have fixed sizes.

export interface Trace {
  readonly name: string;
  /** The object of each request, in order. */
  readonly requests: Uint32Array;
  /** Size in bytes by object. */
  readonly sizes: Float64Array;
}

/** Numbers in [0, 1) from a seed (sfc32). */
function seededRandom(seed: number): () => number {
  let [a, b, c, counter] = [seed | 0, 0x9e3779b9 | 0, 0x243f6a88, 1];
  const next = (): number => {
    const result = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + result;
    return (result >>> 0) / 2 ** 32;
  };
  for (let warm = 0; warm < 16; warm += 1) next();
  return next;
}

/** Request shares of objects by rank, proportional to rank^−alpha. */
export function zipfShares(objects: number, alpha: number): Float64Array {
  const shares = Float64Array.from({ length: objects }, (_, rank) => (rank + 1) ** -alpha);
  const sum = shares.reduce((before, share) => before + share, 0);
  return shares.map((share) => share / sum);
}

/** Samples an index with the probability of its share. */
function sampler(shares: Float64Array, random: () => number): () => number {
  let sum = 0;
  const cumulative = shares.map((share) => (sum += share));
  return () => {
    const at = random() * sum;
    let [low, high] = [0, cumulative.length - 1];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (cumulative[middle]! > at) high = middle;
      else low = middle + 1;
    }
    return low;
  };
}

/** Independent requests for objects of one byte, with Zipf popularity. */
export function zipfTrace(spec: {
  readonly objects: number;
  readonly alpha: number;
  readonly requests: number;
  readonly seed: number;
}): Trace {
  const draw = sampler(zipfShares(spec.objects, spec.alpha), seededRandom(spec.seed));
  return {
    name: `zipf ${spec.alpha}`,
    requests: Uint32Array.from({ length: spec.requests }, draw),
    sizes: new Float64Array(spec.objects).fill(1),
  };
}

/** Zipf requests, and after every `every` of them a scan over `scan` objects that are not requested again. */
export function zipfTraceWithScans(spec: {
  readonly objects: number;
  readonly alpha: number;
  readonly requests: number;
  readonly every: number;
  readonly scan: number;
  readonly seed: number;
}): Trace {
  const base = zipfTrace(spec);
  const scans = Math.floor(spec.requests / spec.every);
  const requests = new Uint32Array(spec.requests + scans * spec.scan);
  let at = 0;
  let fresh = spec.objects;
  for (const [turn, object] of base.requests.entries()) {
    requests[at] = object;
    at += 1;
    if ((turn + 1) % spec.every !== 0) continue;
    for (let step = 0; step < spec.scan; step += 1, at += 1, fresh += 1) requests[at] = fresh;
  }
  return { name: 'zipf+scan', requests, sizes: new Float64Array(fresh).fill(1) };
}

const RENDITION_BYTES = [400_000, 1_100_000, 2_600_000] as const;
const SEGMENTS = { least: 40, most: 900 } as const;
/** One request in this many belongs to a scan that copies the catalog, title by title. */
const SCAN_EVERY = 12;

/**
 * An evening of video on demand: viewers pick titles with Zipf popularity and play segment after segment of one rendition, mostly not
 * to the end, while one client copies the whole catalog once.
 */
export function eveningTrace(spec: {
  readonly titles: number;
  readonly viewers: number;
  readonly requests: number;
  readonly seed: number;
}): Trace {
  const { titles, viewers: viewerCount } = spec;
  const random = seededRandom(spec.seed);
  const pick = sampler(zipfShares(titles, 0.9), random);
  const segments = Array.from({ length: titles }, () =>
    Math.floor(SEGMENTS.least + random() ** 2 * (SEGMENTS.most - SEGMENTS.least)),
  );
  const objects = new Map<number, number>();
  const sizes: number[] = [];
  const object = (title: number, rendition: number, segment: number): number => {
    const name = (title * RENDITION_BYTES.length + rendition) * SEGMENTS.most + segment;
    const existing = objects.get(name);
    if (existing !== undefined) return existing;
    objects.set(name, sizes.length);
    return sizes.push(Math.round(RENDITION_BYTES[rendition]! * (0.6 + 0.8 * random()))) - 1;
  };
  const startViewing = (): { title: number; rendition: number; at: number; end: number } => {
    const title = pick();
    const watched = random() < 0.35 ? 0.1 * random() : 0.2 + 0.8 * random();
    return {
      ...{ title, at: 0, rendition: Math.floor(random() * RENDITION_BYTES.length) },
      end: Math.max(1, Math.ceil(segments[title]! * watched)),
    };
  };
  const viewers = Array.from({ length: viewerCount }, startViewing);
  const scan = { title: 0, segment: 0 };
  const requests = Uint32Array.from({ length: spec.requests }, (_, turn) => {
    if (turn % SCAN_EVERY === 0) {
      if (scan.segment === segments[scan.title]) {
        scan.title = (scan.title + 1) % titles;
        scan.segment = 0;
      }
      scan.segment += 1;
      return object(scan.title, RENDITION_BYTES.length - 1, scan.segment - 1);
    }
    const index = Math.floor(random() * viewerCount);
    const viewer = viewers[index]!;
    viewer.at += 1;
    if (viewer.at === viewer.end) viewers[index] = startViewing();
    return object(viewer.title, viewer.rendition, viewer.at - 1);
  });
  return { name: 'evening', requests, sizes: Float64Array.from(sizes) };
}
