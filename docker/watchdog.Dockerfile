# The watchdog alone: Python, three libraries, and nothing that compiles or serves a model.
#
#   docker build -f docker/watchdog.Dockerfile -t llm-sidecar-watchdog .
#
# A glibc image on purpose: the driver's library, which the NVIDIA runtime puts in, needs it.
ARG BASE_IMAGE=python:3.11-slim-bookworm


FROM ${BASE_IMAGE} AS build
COPY requirements/watchdog.txt .
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --disable-pip-version-check --root-user-action=ignore --require-hashes \
        --target /opt/watchdog -r watchdog.txt
COPY watchdog/ /opt/watchdog/watchdog/
RUN python3 -m compileall -q /opt/watchdog/watchdog


FROM ${BASE_IMAGE}
RUN useradd --uid 10002 --user-group --no-create-home watchdog
COPY --from=build /opt/watchdog /opt/watchdog
ENV PYTHONUNBUFFERED=1 PYTHONPATH=/opt/watchdog
WORKDIR /opt/watchdog
HEALTHCHECK --interval=30s --timeout=10s --retries=3 --start-period=30s \
    CMD ["python3", "-m", "watchdog", "--health"]
ENTRYPOINT ["python3", "-m", "watchdog"]
ARG VERSION=dev REVISION=unknown
LABEL org.opencontainers.image.title="llm-sidecar-watchdog" \
      org.opencontainers.image.description="Restarts llm-sidecar when its card's memory stays over the budget" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" org.opencontainers.image.revision="$REVISION"
USER 10002:10002
