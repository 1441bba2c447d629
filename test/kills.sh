#!/usr/bin/env bash
# Kills and stops processes of a running appliance while clients read, and looks at every byte that they get.
#
#   test/kills.sh                 200 kills with ten workers, in about five minutes
#   test/kills.sh 30 2            30 kills with two workers
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export LARDER_KILLS=${1:-200}
export LARDER_WORKERS=${2:-10}
npm run -s build
exec npx vitest run appliance/test/kill-loop.test.ts
