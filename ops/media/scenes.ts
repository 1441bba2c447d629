// The pictures of the three titles: flat SVG drawings in layers, and how each layer moves and fades. ffmpeg's filters move the
// layers, so positions are ffmpeg expressions of the time t, as text.

import { seededRandom, disc, gradient, ground, px, rect, shape, svg, times } from './svg.ts';
import { H, type Layer, W } from './title.ts';

export function drawHarbor(): Layer[] {
  const horizon = 430;
  const rnd = seededRandom(7);
  const sky = svg(W, H, gradient('g', 'linear', '0 #24336b', '0.3 #7a4a86', '0.5 #e8785a', '0.6 #ffc98a'), rect(0, 0, W, H, 'url(#g)'));
  const stars = times(90, () => disc(rnd() * W, rnd() ** 1.4 * 390, 0.9 + rnd() * 1.5, '#dfe8ff'));
  const night = svg(W, H, gradient('g', 'linear', '0 #060b22', '0.6 #21376b'), rect(0, 0, W, H, 'url(#g)'), ...stars);
  const sun = svg(320, 320, gradient('g', 'radial', '0 #fff2c4', '0.4 #ffd98c', '0.42 #ff9f5e 0.5', '1 #ff9f5e 0'), disc(160, 160, 160, 'url(#g)'));
  const moon = svg(240, 240, gradient('g', 'radial', '0 #f3f6ff 0.4', '1 #9db4ff 0'), disc(120, 120, 120, 'url(#g)'), disc(120, 120, 44, '#f4f1e2'), disc(108, 110, 9, '#ded9c4'), disc(134, 128, 12, '#e2ddc9'), disc(126, 98, 6, '#e2ddc9'));

  // The town: houses with gables and towers. Their windows are a layer of their own.
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

export function drawMeadow(): Layer[] {
  const rnd = seededRandom(11);
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

export function drawTunnel(): Layer[] {
  // A road tunnel in perspective. The lamps repeat every four arches, so 72 drawings (three seconds) form a loop.
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

const fadeIn = (from: number, to: number): string => `fade=t=in:st=${from}:d=${to - from}:alpha=1`;
