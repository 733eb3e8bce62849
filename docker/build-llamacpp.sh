#!/bin/sh
# build-llamacpp.sh ARCHIVE SHA256 OUT [CUDA_ARCHITECTURES]: llama-server and its libraries, from source.
#
# ARCHIVE is a .tar.gz with llama.cpp's tree anywhere in it: a release, or a package that vendors one.
# With CUDA_ARCHITECTURES, such as "61;120", the CUDA backend is built too. JOBS compilers run at a time.
set -eu

archive=$1 sha256=$2 out=$3 architectures=${4:-}

found=$(sha256sum "$archive" | cut -d ' ' -f 1)
if [ "$found" != "$sha256" ]; then
  echo "$archive has the sha256 $found, not $sha256; give LLAMA_CPP_SHA256 the sum of the archive at LLAMA_CPP_URL" >&2
  exit 65
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -xzf "$archive" -C "$work"
tree=$(grep -rl --include=CMakeLists.txt '^project("llama.cpp"' "$work" | head -n 1)
if [ -z "$tree" ]; then
  echo "$archive holds no llama.cpp: no CMakeLists.txt with project(\"llama.cpp\")" >&2
  exit 65
fi
tree=$(dirname "$tree")

# One image for every processor: each variant of the CPU backend is a library, the fitting one is loaded.
set -- -DGGML_NATIVE=OFF -DGGML_BACKEND_DL=ON -DGGML_CPU_ALL_VARIANTS=ON -DBUILD_SHARED_LIBS=ON
# The server alone. Its pages would be fetched while building; models are the sidecar's to download.
set -- "$@" -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_CURL=OFF \
  -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_IS_DEV=OFF
# The libraries are found beside the program, wherever it is put.
set -- "$@" -DCMAKE_BUILD_TYPE=Release -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON "-DCMAKE_INSTALL_RPATH=\$ORIGIN"
if [ -n "$architectures" ]; then
  # libcuda.so.1 is the driver's and comes with the container. NCCL is several hundred MB for a split
  # of tensors that no profile asks for.
  set -- "$@" -DGGML_CUDA=ON "-DCMAKE_CUDA_ARCHITECTURES=$architectures" -DGGML_CUDA_NCCL=OFF \
    -DCMAKE_EXE_LINKER_FLAGS=-Wl,--allow-shlib-undefined
fi

cmake -S "$tree" -B "$work/build" -G Ninja "$@"
cmake --build "$work/build" --target llama-server -j "${JOBS:-$(nproc)}"

mkdir -p "$out"
cp -P "$work/build/bin/llama-server" "$work"/build/bin/*.so* "$out/"
cp "$tree/LICENSE" "$out/LICENSE.llama.cpp"
