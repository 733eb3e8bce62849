# Prometheus from Debian's archive; its configuration is mounted (docker/prometheus/).
ARG PLAIN_IMAGE=debian:bookworm-slim
FROM ${PLAIN_IMAGE}
RUN apt-get update \
 && apt-get install -y --no-install-recommends prometheus \
 && rm -rf /var/lib/apt/lists/* /etc/prometheus \
 && useradd --uid 10004 --user-group --no-create-home metrics \
 && install -d -o 10004 -g 10004 /prometheus
EXPOSE 9090
# bash asks, since `promtool check ready` is newer than Debian's.
HEALTHCHECK --interval=10s --timeout=5s --retries=3 --start-period=30s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9090 && printf 'GET /-/ready HTTP/1.0\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
ENTRYPOINT ["prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus", "--storage.tsdb.retention.time=15d", "--web.listen-address=0.0.0.0:9090"]
LABEL org.opencontainers.image.title="llm-sidecar-prometheus" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 10004:10004
