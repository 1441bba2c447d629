// Which files are tests, and how long one may take before it counts as hung.

import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['*/test/*.test.ts', '*/*/test/*.test.ts', 'test/**/*.test.ts'],
    globalSetup: ['test/tools.ts'],
    // Real processes on shared machines: a deadline only catches a hang.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    maxWorkers: 2,
  },
});
