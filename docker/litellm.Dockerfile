# LiteLLM's proxy as the one door before several servers; who they are says the environment
# (docker/litellm/door.py).
#
#   docker build -f docker/litellm.Dockerfile -t llm-sidecar-litellm .
ARG BASE_IMAGE=python:3.11-slim-bookworm


FROM ${BASE_IMAGE} AS build
COPY requirements/litellm.txt .
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /opt/litellm \
 && /opt/litellm/bin/pip install --disable-pip-version-check --require-hashes --no-deps -r litellm.txt


FROM ${BASE_IMAGE}
RUN useradd --uid 10003 --user-group --no-create-home litellm
COPY --from=build /opt/litellm /opt/litellm
COPY docker/litellm/ /app/
ENV PYTHONUNBUFFERED=1 HOST=0.0.0.0 HOME=/tmp
WORKDIR /app
EXPOSE 4000
HEALTHCHECK --interval=10s --timeout=5s --retries=3 --start-period=2m \
    CMD ["/opt/litellm/bin/python", "door.py", "--health"]
ENTRYPOINT ["/opt/litellm/bin/python", "door.py"]
ARG VERSION=dev REVISION=unknown
LABEL org.opencontainers.image.title="llm-sidecar-litellm" \
      org.opencontainers.image.description="One door before several sidecars: LiteLLM's proxy with its configuration" \
      org.opencontainers.image.licenses="Apache-2.0 AND MIT" \
      org.opencontainers.image.version="$VERSION" org.opencontainers.image.revision="$REVISION"
USER 10003:10003
