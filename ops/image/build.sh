#!/usr/bin/env bash
# Builds the image of the Dockerfile without a Docker daemon or a registry, then runs `larder demo --check` inside it. The base is
# Debian, made by mmdebstrap from the package sources of this machine, with Node from npm.
#
#   sudo ops/image/build.sh [ARCHIVE.tar]      ARCHIVE.tar is written for `docker load` or `podman load`
#
# Needs root, npm, and: apt-get install buildah mmdebstrap
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly node_major=24 npm_major=11 suite=bookworm
archive=${1:-}

for command in buildah mmdebstrap npm; do
  command -v "$command" >/dev/null || { echo "there is no $command; run: apt-get install buildah mmdebstrap" >&2; exit 2; }
done
[ "$(id -u)" -eq 0 ] || { echo 'mmdebstrap and chroot need root' >&2; exit 2; }

work=$(mktemp -d)
buildah=(buildah --storage-driver vfs --root "$work/images" --runroot "$work/run")
finish() {
  "${buildah[@]}" rm --all >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT

say() { echo "-- $* ($SECONDS s)"; }

# Only the sources of Debian itself; further package sources of this machine do not belong in the image.
sources=()
for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
  if [ -s "$file" ]; then sources+=("$file"); fi
done

say "base: Debian $suite"
mmdebstrap --quiet --variant=minbase --include=ca-certificates --aptopt='APT::Install-Recommends "false"' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  "$suite" "$work/base" "${sources[@]}"

say "base: Node $node_major and npm $npm_major"
npm install --silent --no-audit --no-fund --prefix "$work/node" \
  "node-linux-$(node -p process.arch)@$node_major" "npm@$npm_major"
install -D "$work/node/node_modules/node-linux-$(node -p process.arch)/bin/node" "$work/base/usr/local/bin/node"
mkdir -p "$work/base/usr/local/lib/node_modules"
cp -r "$work/node/node_modules/npm" "$work/base/usr/local/lib/node_modules/npm"
ln -s ../lib/node_modules/npm/bin/npm-cli.js "$work/base/usr/local/bin/npm"

container=$("${buildah[@]}" from scratch)
"${buildah[@]}" add --quiet "$container" "$work/base" / >/dev/null
"${buildah[@]}" commit --quiet --format docker "$container" larder-base >/dev/null
"${buildah[@]}" rm "$container" >/dev/null
rm -rf "$work/base" "$work/node"

say 'image: Dockerfile'
# The build stage trusts the CA certificates of this machine, for networks with a TLS-inspecting proxy. None remain in the image.
certificates=/etc/ssl/certs/ca-certificates.crt
"${buildah[@]}" bud --quiet --isolation chroot --format docker --pull-never \
  --build-arg BASE=localhost/larder-base --build-arg NODE_EXTRA_CA_CERTS="$certificates" \
  --volume "$certificates:$certificates:ro" --tag larder . >/dev/null

say 'image: larder demo --check inside'
container=$("${buildah[@]}" from --pull-never localhost/larder)
inside() { "${buildah[@]}" run --isolation chroot --user larder "$container" -- "$@"; }
inside larder --version
inside larder demo --check

if [ -n "$archive" ]; then
  rm -f "$archive"
  "${buildah[@]}" push --quiet localhost/larder "docker-archive:$archive:larder:latest"
fi
say "image: done, $("${buildah[@]}" images --format '{{.Size}}' localhost/larder)"
