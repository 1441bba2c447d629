#!/usr/bin/env bash
# Kills and stops processes of a running appliance while clients read, and purges what they read, and looks at every byte that they get.
#
#   test/kills.sh                 200 kills and 100 purges with ten workers, in about seven minutes
#   test/kills.sh 30 2            30 kills and 15 purges with two workers
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export LARDER_KILLS=${1:-200}
export LARDER_PURGES=$((LARDER_KILLS / 2))
export LARDER_WORKERS=${2:-10}
npm run -s build
exec npx vitest run appliance/test/kill-loop.test.ts appliance/test/purge-loop.test.ts --no-file-parallelism
