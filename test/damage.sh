#!/usr/bin/env bash
# Flips bytes in the block files of a running appliance, and on the disk below its file system, each followed by reads of the place
# and of the whole film: not one wrong byte may be served. Needs root for the second kind.
#
#   test/damage.sh                250 flips of each kind, in about three minutes
#   test/damage.sh 20             20 of each kind
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export LARDER_FLIPS=${1:-250}
npm run -s build
exec npx vitest run appliance/test/damage.test.ts --testTimeout 600000
