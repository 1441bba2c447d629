// Loads CommonJS packages. When a module imports one, Node searches the package's source for the names that it exports: for fastify and
// level that took a starting storekeeper 35 ms of CPU each.

import { createRequire } from 'node:module';

export const loadCommonJs = createRequire(import.meta.url);
