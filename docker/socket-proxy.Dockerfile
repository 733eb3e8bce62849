# HAProxy between the watchdog and the Docker socket: three requests pass, everything else is refused.
ARG PROXY_BASE_IMAGE=debian:bookworm-slim
FROM ${PROXY_BASE_IMAGE}
RUN apt-get update \
 && apt-get install -y --no-install-recommends haproxy \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o 0 -g 10002 -m 0750 /run/docker-proxy
COPY docker/haproxy.cfg /etc/haproxy/haproxy.cfg
HEALTHCHECK --interval=30s --timeout=5s --retries=3 CMD ["test", "-S", "/run/docker-proxy/docker.sock"]
ENTRYPOINT ["haproxy", "-db", "-f", "/etc/haproxy/haproxy.cfg"]
LABEL org.opencontainers.image.title="llm-sidecar-socket-proxy" \
      org.opencontainers.image.licenses="Apache-2.0"
