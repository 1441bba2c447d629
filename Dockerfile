# One image for every role: what follows its name are the words after `larder`.
#
#   docker run -p 8080:8080 -v cache:/srv/larder larder appliance run --origin http://origin.example --store-bytes 100GB
#   docker run -p 8400:8400 -v state:/var/lib/larder larder steering run --origin http://origin.example
#   docker run larder demo --check
#
# BASE is any Debian with Node 24 and npm; ops/image/build.sh makes one where no registry can be reached.
ARG BASE=docker.io/library/node:24-bookworm-slim

FROM ${BASE} AS build
# Only where a proxy inspects TLS: the file of its certificate, mounted by whoever builds.
ARG NODE_EXTRA_CA_CERTS
WORKDIR /build
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts
COPY . .
RUN npm run build && npm prune --omit=dev --ignore-scripts \
 && find node_modules -type f \( -name '*.map' -o -name '*.d.ts' -o -name '*.d.mts' -o -name '*.d.cts' \) -delete

FROM ${BASE}
RUN groupadd --gid 10001 larder \
 && useradd --uid 10001 --gid larder --home-dir /var/lib/larder --no-create-home --shell /usr/sbin/nologin larder \
 && install -d -o larder -g larder -m 0750 /var/lib/larder /srv/larder
WORKDIR /opt/larder
COPY --from=build /build/package.json /build/LICENSE ./
COPY --from=build /build/node_modules ./node_modules
COPY --from=build /build/dist ./dist
COPY --from=build /build/steering/ui ./steering/ui
COPY --from=build /build/ops/media ./ops/media
RUN ln -s /opt/larder/dist/larder.js /usr/local/bin/larder && chmod 0755 dist/larder.js

# State (keys, registry, catalog, plans) and store (blocks). The store belongs on the disks that the appliance serves from.
ENV LARDER_HOME=/var/lib/larder LARDER_STORE=/srv/larder NODE_ENV=production
VOLUME ["/var/lib/larder", "/srv/larder"]
USER larder
WORKDIR /var/lib/larder
EXPOSE 8080 8081 8400 8500
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["node", "/opt/larder/dist/ops/health.js"]
ENTRYPOINT ["larder"]
CMD ["--help"]
