"""Where the embedded model lies: package data, made by `tools/embedded_model`."""

from pathlib import Path

HERE = Path(__file__).parent
MODEL_DIR = HERE / "model"
"""The 4-bit GPTQ checkpoint as a transformers folder."""
GGUF_Q8_0 = HERE / "embedded-q8_0.gguf"
"""The same weights for llama.cpp, 8 bit."""
GGUF_Q4_0 = HERE / "embedded-q4_0.gguf"
"""The same weights for llama.cpp, 4 bit."""
SHA256SUMS = HERE / "SHA256SUMS"
REPORT = HERE / "report.json"
