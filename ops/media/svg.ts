// The SVG shapes that the scenes use, as text, and a seeded random generator. Pure.

/** Numbers in [0, 1) from a seed (mulberry32), so that every run draws the same pictures. */
export function seededRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let n = Math.imul(state ^ (state >>> 15), 1 | state);
    n = (n + Math.imul(n ^ (n >>> 7), 61 | n)) ^ n;
    return ((n ^ (n >>> 14)) >>> 0) / 2 ** 32;
  };
}

export const times = <T>(n: number, make: (i: number) => T): T[] => Array.from({ length: n }, (_, i) => make(i));
export const px = (n: number): string => n.toFixed(1);

export const svg = (width: number, height: number, ...body: string[]): string =>
  `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">${body.join('')}</svg>`;

/** A gradient with an id. Each stop is `offset colour` or `offset colour opacity`. */
export function gradient(id: string, kind: 'linear' | 'radial', ...stops: string[]): string {
  const inner = stops.map((stop) => {
    const [offset, colour, opacity = '1'] = stop.split(' ');
    return `<stop offset="${offset}" stop-color="${colour}" stop-opacity="${opacity}"/>`;
  });
  const shape = kind === 'linear' ? 'linearGradient x1="0" y1="0" x2="0" y2="1"' : 'radialGradient';
  return `<defs><${shape} id="${id}">${inner.join('')}</${shape.split(' ')[0]}></defs>`;
}

export const rect = (x: number, y: number, w: number, h: number, fill: string): string =>
  `<rect x="${px(x)}" y="${px(y)}" width="${px(w)}" height="${px(h)}" fill="${fill}"/>`;
export const disc = (x: number, y: number, r: number, fill: string): string =>
  `<circle cx="${px(x)}" cy="${px(y)}" r="${px(r)}" fill="${fill}"/>`;
export const shape = (d: string, fill: string, more = ''): string => `<path d="${d}" fill="${fill}" ${more}/>`;

/** Land or water: the area below the line y = line(x). */
export function ground(width: number, height: number, fill: string, line: (x: number) => number, ...more: string[]): string {
  const top = times(Math.ceil(width / 10) + 1, (i) => `L${i * 10} ${px(line(i * 10))}`).join('');
  return svg(width, height, ...more, shape(`M0 ${height}${top}L${width} ${height}Z`, fill));
}
