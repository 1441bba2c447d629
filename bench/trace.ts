// Requests to replay: made from a seed, so that a run can be had again. Object 0 … n−1, each of a fixed size.

export interface Trace {
  readonly name: string;
  /** The object of each request, in order. */
  readonly requests: Uint32Array;
  /** Bytes by object. */
  readonly sizes: Float64Array;
}

/** sfc32: [0, 1) from a seed. */
export function randomFrom(seed: number): () => number {
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

/** Shares of objects by rank: proportional to rank^−alpha. */
export function zipfShares(objects: number, alpha: number): Float64Array {
  const shares = Float64Array.from({ length: objects }, (_, rank) => (rank + 1) ** -alpha);
  const sum = shares.reduce((before, share) => before + share, 0);
  return shares.map((share) => share / sum);
}

/** Draws an index by its share. */
export function drawFrom(shares: Float64Array, random: () => number): () => number {
  let sum = 0;
  const upTo = shares.map((share) => (sum += share));
  return () => {
    const at = random() * sum;
    let [low, high] = [0, upTo.length - 1];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (upTo[middle]! > at) high = middle;
      else low = middle + 1;
    }
    return low;
  };
}

/** Independent requests for objects of one byte. */
export function zipf(spec: {
  readonly objects: number;
  readonly alpha: number;
  readonly requests: number;
  readonly seed: number;
}): Trace {
  const draw = drawFrom(zipfShares(spec.objects, spec.alpha), randomFrom(spec.seed));
  return {
    name: `zipf ${spec.alpha}`,
    requests: Uint32Array.from({ length: spec.requests }, draw),
    sizes: new Float64Array(spec.objects).fill(1),
  };
}

/** The same, and after every so many of them a walk over as many objects that nobody asks for again. */
export function zipfAndScan(spec: {
  readonly objects: number;
  readonly alpha: number;
  readonly requests: number;
  readonly every: number;
  readonly scan: number;
  readonly seed: number;
}): Trace {
  const base = zipf(spec);
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
/** One request in so many is that of somebody who copies the catalog, title by title. */
const COPY_EVERY = 12;

/**
 * An evening of video: viewers who pick titles by Zipf and watch segment after segment of one rendition, most of them not
 * to the end, and one who copies everything once.
 */
export function evening(spec: {
  readonly titles: number;
  readonly viewers: number;
  readonly requests: number;
  readonly seed: number;
}): Trace {
  const { titles, viewers: seats } = spec;
  const random = randomFrom(spec.seed);
  const pick = drawFrom(zipfShares(titles, 0.9), random);
  const segments = Array.from({ length: titles }, () =>
    Math.floor(SEGMENTS.least + random() ** 2 * (SEGMENTS.most - SEGMENTS.least)),
  );
  const objects = new Map<number, number>();
  const sizes: number[] = [];
  const object = (title: number, rendition: number, segment: number): number => {
    const name = (title * RENDITION_BYTES.length + rendition) * SEGMENTS.most + segment;
    const known = objects.get(name);
    if (known !== undefined) return known;
    objects.set(name, sizes.length);
    return sizes.push(Math.round(RENDITION_BYTES[rendition]! * (0.6 + 0.8 * random()))) - 1;
  };
  const sitDown = (): { title: number; rendition: number; at: number; end: number } => {
    const title = pick();
    const watched = random() < 0.35 ? 0.1 * random() : 0.2 + 0.8 * random();
    return {
      ...{ title, at: 0, rendition: Math.floor(random() * RENDITION_BYTES.length) },
      end: Math.max(1, Math.ceil(segments[title]! * watched)),
    };
  };
  const viewers = Array.from({ length: seats }, sitDown);
  const copy = { title: 0, segment: 0 };
  const requests = Uint32Array.from({ length: spec.requests }, (_, turn) => {
    if (turn % COPY_EVERY === 0) {
      if (copy.segment === segments[copy.title]) {
        copy.title = (copy.title + 1) % titles;
        copy.segment = 0;
      }
      copy.segment += 1;
      return object(copy.title, RENDITION_BYTES.length - 1, copy.segment - 1);
    }
    const seat = Math.floor(random() * seats);
    const viewer = viewers[seat]!;
    viewer.at += 1;
    if (viewer.at === viewer.end) viewers[seat] = sitDown();
    return object(viewer.title, viewer.rendition, viewer.at - 1);
  });
  return { name: 'evening', requests, sizes: Float64Array.from(sizes) };
}
