// Serves the player page: the files of steering/ui and hls.js, read into memory at start. A request looks up its path in that
// map and never opens a file, so that no spelling of `..` reaches the disk.

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { extname, join, relative, sep } from 'node:path';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Fault } from '../../protocol/faults.ts';
import { route, type Route } from '../../runtime/service.ts';

export const UI_FILES_MAX = 64;
export const UI_FILE_BYTES_MAX = 4 * 2 ** 20;

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.ico': 'image/x-icon',
  '.woff2': 'font/woff2',
};

/**
 * Scripts and styles come from this service only. hls.js runs its worker and its media from blob: URLs, and its subtitle tracks
 * start as empty data: URLs. Segments and playlists come from appliances and the origin, so `connect-src` allows any host.
 */
export const UI_CSP = [
  "default-src 'none'",
  "script-src 'self'",
  "worker-src 'self' blob:",
  "style-src 'self'",
  "img-src 'self' data: http: https:",
  "font-src 'self'",
  'media-src blob: data: http: https:',
  'connect-src http: https:',
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

export interface UiFile {
  readonly type: string;
  readonly etag: string;
  readonly body: Buffer;
}

/** By path below /ui/. If the directory is missing, only hls.js is served. */
export function readUi(directory: string): Map<string, UiFile> {
  const files = new Map<string, UiFile>();
  for (const path of listFiles(directory)) {
    const type = TYPES[extname(path)];
    if (type === undefined || statSync(path).size > UI_FILE_BYTES_MAX) continue;
    if (files.size >= UI_FILES_MAX)
      throw new Fault('config_invalid', `${directory} has more than ${UI_FILES_MAX} files`);
    files.set(relative(directory, path).split(sep).join('/'), uiFile(type, readFileSync(path)));
  }
  const hls = createRequire(import.meta.url).resolve('hls.js/dist/hls.min.js');
  files.set('hls.min.js', uiFile(TYPES['.js']!, readFileSync(hls)));
  return files;
}

function listFiles(directory: string): string[] {
  try {
    return readdirSync(directory, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

const uiFile = (type: string, body: Buffer): UiFile => ({
  type,
  body,
  etag: `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"`,
});

const redirectToPage = ({ reply }: { readonly reply: FastifyReply }): FastifyReply => reply.redirect('/ui/', 302);

export function uiRoutes(files: ReadonlyMap<string, UiFile>): Route[] {
  return [
    route({ method: 'GET', path: '/', summary: 'The page.', roles: null, run: redirectToPage }),
    route({ method: 'GET', path: '/ui', summary: 'The page.', roles: null, run: redirectToPage }),
    route({
      method: 'GET',
      path: '/ui/*',
      summary: 'The page that plays a title and shows who served it.',
      roles: null,
      faults: ['not_found'],
      run: ({ request, reply }) => {
        const name = request.url.replace(/[?#].*$/s, '').slice('/ui/'.length) || 'index.html';
        const file = files.get(name);
        if (file === undefined)
          throw new Fault('not_found', `the page has no file ${JSON.stringify(name.slice(0, 100))}`);
        return serve(file, request, reply);
      },
    }),
  ];
}

function serve(file: UiFile, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  void reply
    .header('content-security-policy', UI_CSP)
    .header('x-content-type-options', 'nosniff')
    .header('referrer-policy', 'no-referrer')
    .header('cache-control', 'no-cache')
    .header('etag', file.etag);
  const cached = (request.headers['if-none-match'] ?? '').split(',').map((tag) => tag.trim().replace(/^W\//, ''));
  if (cached.includes(file.etag)) return reply.code(304).send();
  return reply.type(file.type).send(file.body);
}
