# The sidecar over llama-server, for GGUF models; no torch. Two targets: `cuda` (the default) and `cpu`.
#
#   docker build -f docker/llamacpp.Dockerfile -t llm-sidecar-llamacpp:cuda .
#   docker build -f docker/llamacpp.Dockerfile -t llm-sidecar-llamacpp:cpu --target cpu .
#
# llama-server is compiled from a release, or taken from an image that has it:
#
#   --build-arg CUDA_ARCHITECTURES=61                                    one card's: much quicker
#   --build-arg ENGINE_IMAGE=ghcr.io/ggml-org/llama.cpp:server-cuda-...  nothing is compiled
#   --build-context llama-cpp-source=DIR                                 DIR/llama.cpp.tar.gz, no download
ARG BASE_IMAGE=python:3.11-slim-bookworm
# CUDA 12.8 and 12.9 are the only ones that know Pascal (61) and Blackwell (120) both.
ARG CUDA_IMAGE=nvidia/cuda:12.8.1-devel-ubuntu24.04
ARG ENGINE_IMAGE=""


FROM scratch AS llama-cpp-source
ARG LLAMA_CPP_VERSION=v0.5.0
ARG LLAMA_CPP_URL=https://github.com/ggml-org/llama.cpp/archive/refs/tags/${LLAMA_CPP_VERSION}.tar.gz
ADD ${LLAMA_CPP_URL} /llama.cpp.tar.gz


FROM ${BASE_IMAGE} AS compiled-cpu
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake g++ ninja-build \
 && rm -rf /var/lib/apt/lists/*
COPY docker/build-llamacpp.sh .
COPY --from=llama-cpp-source /llama.cpp.tar.gz .
# Of the archive, so it changes with LLAMA_CPP_VERSION and LLAMA_CPP_URL.
ARG LLAMA_CPP_SHA256=fef9ed754f4e031fb5c663c29260feda4ebc241abb68d64a81c0f1df5f1748e2
ARG JOBS=""
RUN ./build-llamacpp.sh llama.cpp.tar.gz "$LLAMA_CPP_SHA256" /app


FROM ${CUDA_IMAGE} AS compiled-cuda
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake g++ ninja-build \
 && rm -rf /var/lib/apt/lists/*
COPY docker/build-llamacpp.sh .
COPY --from=llama-cpp-source /llama.cpp.tar.gz .
ARG LLAMA_CPP_SHA256=fef9ed754f4e031fb5c663c29260feda4ebc241abb68d64a81c0f1df5f1748e2
ARG JOBS=""
# 61: P106, P104, GTX 10; 86: RTX 30; 89: RTX 40; 120: RTX 50.
ARG CUDA_ARCHITECTURES="61;86;89;120"
RUN ./build-llamacpp.sh llama.cpp.tar.gz "$LLAMA_CPP_SHA256" /app "$CUDA_ARCHITECTURES"


FROM ${ENGINE_IMAGE:-compiled-cpu} AS engine-cpu
USER 0
COPY docker/bundle-llamacpp.sh /tmp/
RUN sh /tmp/bundle-llamacpp.sh /opt/llama-server


FROM ${ENGINE_IMAGE:-compiled-cuda} AS engine-cuda
USER 0
COPY docker/bundle-llamacpp.sh /tmp/
RUN sh /tmp/bundle-llamacpp.sh /opt/llama-server


FROM ${BASE_IMAGE} AS venv
COPY requirements/llamacpp.txt .
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --disable-pip-version-check --require-hashes -r llamacpp.txt


FROM ${BASE_IMAGE} AS code
WORKDIR /app
COPY server.py LICENSE ./
COPY config/ config/
COPY sidecar/ sidecar/
COPY docker/healthcheck.py docker/llm-sidecar docker/huggingface-cli docker/
RUN python3 -m compileall -q server.py sidecar


FROM ${BASE_IMAGE} AS runtime
# /models and /data/.huggingface: where models are kept, and what volumes take their owner from. The root
# may be read-only.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /models sidecar \
 && install -d -o 10001 -g 10001 /models /data/.huggingface \
 && ln -s /app/docker/llm-sidecar /app/docker/huggingface-cli /usr/local/bin/ \
 && ln -s /opt/llama-server/run /usr/local/bin/llama-server
ENV PYTHONUNBUFFERED=1 \
    PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOST=0.0.0.0 \
    HOME=/models \
    HF_HOME=/models/huggingface \
    XDG_CACHE_HOME=/models/cache \
    LLM_PROFILES_CONFIG_PATH=/app/config/llm_profiles.yaml
COPY --from=venv /opt/venv /opt/venv
COPY --from=code /app /app
WORKDIR /app
EXPOSE 8000
STOPSIGNAL SIGTERM
# Ready or not; a first start may have to download the model.
HEALTHCHECK --interval=10s --timeout=5s --retries=3 --start-period=30m \
    CMD ["python3", "docker/healthcheck.py"]
ENTRYPOINT ["llm-sidecar"]
CMD ["serve"]
LABEL org.opencontainers.image.title="llm-sidecar-llamacpp" \
      org.opencontainers.image.description="One GGUF model beside your application, served by llama.cpp under the sidecar's supervision" \
      org.opencontainers.image.licenses="Apache-2.0 AND MIT"


FROM runtime AS cpu
COPY --from=engine-cpu /opt/llama-server /opt/llama-server
ENV DEVICE=cpu LLM_PROFILE_NAME=embedded-gguf
ARG VERSION=dev REVISION=unknown
LABEL org.opencontainers.image.version="$VERSION" org.opencontainers.image.revision="$REVISION"
USER 10001:10001


FROM runtime AS cuda
COPY --from=engine-cuda /opt/llama-server /opt/llama-server
ENV CUDA_DEVICE_ORDER=PCI_BUS_ID \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
ARG VERSION=dev REVISION=unknown
LABEL org.opencontainers.image.version="$VERSION" org.opencontainers.image.revision="$REVISION"
USER 10001:10001
