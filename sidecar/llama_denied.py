"""What `extra_args` may not say to llama-server, and why. Pure.

The argument is one for tuning. Whatever opens a door, fetches or writes files, runs programs, shapes
every answer unasked, or is decided elsewhere is refused, in every spelling that any build has had.

What makes another model of the model is the owner's word, and is accepted: adapters (`--lora`), stretched
positions (`--rope-*`), and what the chat template is told (`--chat-template-kwargs`, `--reasoning`,
`--reasoning-effort`, `--reasoning-preserve`), which both of the engine's routes render alike.
"""

from __future__ import annotations

from collections.abc import Iterable

_DOORS = "the engine decides where llama-server listens and who gets in"
_FILES = "the profile's model keys (model_path, hf_repo_id, hf_filename, ...) name the files"
_FETCH = "it would let llama-server fetch files by itself"
_WRITE = "it would let llama-server write files or show prompts"
_RUN = "it would let llama-server reach programs, tools or other machines"
_LOOK = "llama-server would answer this and end"
_SURE = "the engine counts on its own value"
_ASKED = "each request says this itself"
_HEADER = (
    "the sidecar reads the model's header itself, its control tokens among it, and would go by other values"
)
# It is a sampler that only llama-server's chat route has; most answers come over `/completion`.
_BUDGET = (
    "it would end the thinking of some requests and not of others; limit max_tokens, or say --reasoning off"
)
_OTHERS = (
    "it takes over what was computed behind another beginning: an answer would depend on earlier requests"
)
_UNREAL = "it makes answers up, for benchmarks"

_BY_REASON: dict[str, str] = {
    _DOORS: """--host --port --reuse-port --api-key --api-key-file --api-prefix --ssl-key-file
        --ssl-cert-file --cors-origins --cors-methods --cors-headers --cors-credentials
        --no-cors-credentials --ui --webui --no-ui --no-webui --ui-config --webui-config
        --ui-config-file --webui-config-file --path --public-path --media-path --slots --no-slots
        --props --metrics --sleep-idle-seconds""",
    _FILES: "--model -m --mmproj -mm --mmproj-auto --no-mmproj --no-mmproj-auto --alias -a",
    _FETCH: """--model-url -mu --docker-repo -dr --hf-repo -hf -hfr --hf-file -hff --hf-repo-v -hfv -hfrv
        --hf-file-v -hffv --hf-token -hft --hf-repo-draft -hfd -hfrd --spec-draft-hf --mmproj-url -mmu
        --models-dir --models-preset --models-max --models-autoload --no-models-autoload
        --embd-bge-small-en-default --embd-e5-small-en-default --embd-gte-small-default
        --embd-gemma-default --tts-oute-default""",
    _WRITE: """--slot-save-path --log-prompts-dir --log-file --lookup-cache-dynamic -lcd --prompt-cache
        --prompt-cache-all --logdir --verbose --log-verbose -v --verbosity --log-verbosity -lv
        --log-jsonl --no-log-jsonl --log-disable --log-colors""",
    _RUN: """--rpc --tools --tools-runtime --mcp-servers-config --mcp-servers-json --ui-mcp-proxy
        --webui-mcp-proxy --no-ui-mcp-proxy --no-webui-mcp-proxy --agent -ag --no-agent -no-ag
        --video-ffmpeg-dir""",
    _LOOK: """--help -h --usage --version --cache-list -cl --completion-bash --list-devices
        --print-config""",
    _SURE: """--cache-ram -cram --ctx-checkpoints --swa-checkpoints -ctxcp --context-shift
        --no-context-shift --kv-unified -kvu --no-kv-unified -no-kvu --kv-unified-per-slot
        --fit -fit --fit-target -fitt --fit-ctx -fitc --special -sp
        --jinja --no-jinja --device -dev --cont-batching -cb --no-cont-batching -nocb
        --prefill-assistant --no-prefill-assistant --sse-ping-interval --threads-http --timeout -to
        --rerank --reranking --reasoning-format --skip-chat-parsing --no-skip-chat-parsing
        --backend-sampling -bs --cache-prompt --no-cache-prompt""",
    _HEADER: "--override-kv",
    _BUDGET: "--reasoning-budget --reasoning-budget-message",
    _OTHERS: "--cache-reuse",
    _UNREAL: "--spec-synth-len --spec-synth-rates",
    _ASKED: """--predict --n-predict -n --keep --reverse-prompt -r --prompt -p --file -f --binary-file -bf
        --system-prompt-file -spf --grammar --grammar-file --json-schema -j --json-schema-file -jf
        --samplers --sampler-seq --sampling-seq --seed -s --ignore-eos --logit-bias -l
        --temp --temperature --top-k --top-p --min-p --top-nsigma --top-n-sigma --typical --typical-p --tfs
        --xtc-probability --xtc-threshold --repeat-last-n --repeat-penalty --presence-penalty
        --frequency-penalty --penalize-nl --no-penalize-nl --dry-multiplier --dry-base --dry-allowed-length
        --dry-penalty-last-n --dry-sequence-breaker --adaptive-target --adaptive-decay --dynatemp-range
        --dynatemp-exp --mirostat --mirostat-lr --mirostat-ent""",
}
_BY_KEY = {
    "ctx_size": "--ctx-size -c",
    "n_gpu_layers": "--gpu-layers --n-gpu-layers -ngl",
    "threads": "--threads -t",
    "threads_batch": "--threads-batch -tb",
    "parallel": "--parallel --n-parallel -np",
    "batch_size": "--batch-size -b",
    "ubatch_size": "--ubatch-size -ub",
    "flash_attn": "--flash-attn -fa",
    "cache_type_k": "--cache-type-k -ctk",
    "cache_type_v": "--cache-type-v -ctv",
    "tensor_split": "--tensor-split -ts",
    "split_mode": "--split-mode -sm",
    "main_gpu": "--main-gpu -mg",
    "mlock": "--mlock --load-mode -lm",
    "mmap": "--mmap --no-mmap",
    "cpu_moe": "--cpu-moe -cmoe",
    "n_cpu_moe": "--n-cpu-moe -ncmoe",
    "pooling": "--pooling",
    "chat_template_file": "--chat-template-file --chat-template",
}
DENIED: dict[str, str] = (
    {spelling: reason for reason, spellings in _BY_REASON.items() for spelling in spellings.split()}
    | {
        spelling: f"set the profile's key llamacpp.{key}"
        for key, spellings in _BY_KEY.items()
        for spelling in spellings.split()
    }
    | dict.fromkeys(("--embedding", "--embeddings"), "set the profile's key supports_embeddings")
)
# Presets of the form --fim-qwen-7b-default: each fetches a model of its own.
_PRESET_ENDS = ("-default", "-spec")


def refusal(spellings: Iterable[str]) -> str | None:
    """Why a flag with these spellings is not accepted; None where it is.

    One denied spelling is enough: they all mean the same to the build that lists them together.
    """
    for spelling in spellings:
        if spelling in DENIED:
            return DENIED[spelling]
        if spelling.startswith("--") and spelling.endswith(_PRESET_ENDS):
            return _FETCH
    return None
