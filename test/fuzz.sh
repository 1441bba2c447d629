#!/usr/bin/env bash
# Compares an appliance with nginx over random requests: runs test/differential.test.ts with more of them, and prints progress
# and how often each rule was needed. A run of 100,000 must need every rule of the table in decisions/0017.
#
#   test/fuzz.sh                  100,000 requests from a new seed
#   test/fuzz.sh 5000 42          5,000 requests from seed 42
#   test/fuzz.sh 1 42 1234        case 1234 of seed 42 alone: a failure prints both numbers
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export LARDER_FUZZ_REQUESTS=${1:-100000}
export LARDER_FUZZ_SEED=${2:-$RANDOM}
export LARDER_FUZZ_CASE=${3:-0}
export LARDER_TEST_ALL=1
npm run -s build
echo "seed $LARDER_FUZZ_SEED"
exec npx vitest run test/differential.test.ts --disable-console-intercept
