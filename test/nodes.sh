#!/usr/bin/env bash
# Runs the tests and `demo --check` with every supported version of Node. The versions are installed from npm.
#
#   test/nodes.sh                 all of them
#   test/nodes.sh 22 26           some of them
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ "$#" -gt 0 ] || set -- 20.19.0 22 24 26
platform=$(node -p '`${process.platform}-${process.arch}`')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

failed=()
for version in "$@"; do
  npm install --silent --no-audit --no-fund --prefix "$work/$version" "node-$platform@$version"
  bin=$work/$version/node_modules/node-$platform/bin
  echo "== Node $("$bin/node" --version)"
  # npm runs scripts with the first node in PATH, and vitest runs its workers with the node that runs it.
  if ! PATH="$bin:$PATH" npm test; then failed+=("$version: npm test"); fi
  if ! PATH="$bin:$PATH" npm run -s start -- --check; then failed+=("$version: demo --check"); fi
done

if [ "${#failed[@]}" -gt 0 ]; then
  printf 'FAILED on %s\n' "${failed[@]}"
  exit 1
fi
echo "passed on Node $*"
