"""Train the embedded model in fp32: `python -m tools.embedded_model.train`.

Stops and resumes at its last checkpoint; about 28 minutes on one core. `--fresh` starts again.
"""

import argparse
import json
import math
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from tools.embedded_model.batches import Batch, Batches
from tools.embedded_model.evaluate import share_right
from tools.embedded_model.fourbit import rounded_weights
from tools.embedded_model.induction import plant
from tools.embedded_model.muon import Muon
from tools.embedded_model.progress import Progress
from tools.embedded_model.text import SEED, held_out
from tools.embedded_model.tokens import (
    CONTEXT,
    END_OF_TEXT,
    TURN_END,
    VOCABULARY,
    save_tokenizer,
    token_id,
    train_tokenizer,
)

WORK = Path("build/embedded_model")
STEPS = 3000
WARM_UP = 80
DECAY_FROM = 0.45
ROUNDED_FROM = 0.75
MATRIX_RATE, OTHER_RATE = 0.02, 8e-3
CHECKPOINT_EVERY, LOOK_EVERY = 200, 400


def new_model(tokenizer: Tokenizer) -> LlamaForCausalLM:
    """A Llama of 1.2 million parameters: random weights, and two heads that copy a little."""
    torch.manual_seed(SEED)
    end, turn_end = token_id(tokenizer, END_OF_TEXT), token_id(tokenizer, TURN_END)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.04,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        bos_token_id=end,
        eos_token_id=[turn_end, end],
        pad_token_id=end,
    )
    model = LlamaForCausalLM(config)
    plant(model)
    make: Any = GenerationConfig
    model.generation_config = make(bos_token_id=end, eos_token_id=[turn_end, end], pad_token_id=end)
    return model


def loss_of(model: LlamaForCausalLM, batch: Batch) -> Tensor:
    """The mean loss over the tokens that are learned; the head sees only these."""
    ids, learned = batch
    hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    wanted = learned[:, 1:]
    logits = model.lm_head(hidden[wanted])
    return nn.functional.cross_entropy(logits, ids[:, 1:][wanted])


def rate(step: int, steps: int) -> float:
    """The learning rate as a share of its peak: warm-up, plateau, cosine to nothing."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    late = max(0.0, step / steps - DECAY_FROM) / (1 - DECAY_FROM)
    return 0.5 * (1 + math.cos(math.pi * late))


class Training:
    """The model, its two optimisers and where it stands; what a checkpoint holds."""

    def __init__(self, tokenizer: Tokenizer, steps: int, work: Path) -> None:
        self.tokenizer, self.steps, self.work = tokenizer, steps, work
        self.model = new_model(tokenizer)
        inner = [p for p in self.model.model.layers.parameters() if p.ndim == 2]
        known = {id(p) for p in inner}
        other = [p for p in self.model.parameters() if id(p) not in known]
        self.muon = Muon(inner, MATRIX_RATE)
        self.adam = torch.optim.AdamW(other, OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.0)
        self.done = 0
        self.seconds = 0.0

    @property
    def checkpoint(self) -> Path:
        """Where the training is kept between two runs."""
        return self.work / "checkpoint.pt"

    def save(self) -> None:
        """Write the checkpoint; a death in the middle leaves the old one."""
        state = {
            "model": self.model.state_dict(),
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
            "at": (self.done, self.seconds, self.steps),
        }
        torch.save(state, self.checkpoint.with_suffix(".new"))
        self.checkpoint.with_suffix(".new").replace(self.checkpoint)

    def load(self) -> None:
        """Go on where the checkpoint stands."""
        state = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        self.done, self.seconds, steps = state["at"]
        if steps != self.steps:
            raise SystemExit(f"the checkpoint is of a training of {steps} steps: use --fresh")

    def step(self, batches: list[Batch]) -> float:
        """One update; the loss of its first batch."""
        share = rate(self.done, self.steps)
        for optimizer, peak in ((self.muon, MATRIX_RATE), (self.adam, OTHER_RATE)):
            optimizer.param_groups[0]["lr"] = peak * share
        with rounded_weights(self.model, active=self.done >= ROUNDED_FROM * self.steps):
            losses = [loss_of(self.model, batch) for batch in batches]
            torch.autograd.backward(torch.stack(losses).mean())
        torch.nn.utils.clip_grad_norm_(self.adam.param_groups[0]["params"], 1.0)
        for optimizer in (self.muon, self.adam):
            optimizer.step()
            optimizer.zero_grad()
        self.done += 1
        return float(losses[0].detach())

    def look(self, count: int = 60) -> str:
        """The share of right answers so far, on some of the held-out questions."""
        self.model.train(mode=False)
        right, _ = share_right(self.model, self.tokenizer, held_out(count), longest=200)
        self.model.train()
        return f"{right:.1%} of {count} held-out questions right"

    def run(self) -> None:
        """All steps that are left, with a checkpoint now and then."""
        bar = Progress("training", self.steps)
        losses: list[float] = []
        started = time.monotonic() - self.seconds
        print("generating the text", flush=True)
        source = islice(iter(Batches(self.tokenizer, self.steps)), self.done, None)
        for batches in source:
            losses.append(self.step(batches))
            self.seconds = time.monotonic() - started
            bar.show(self.done, f"loss {sum(losses[-100:]) / len(losses[-100:]):.3f}")
            if self.done % CHECKPOINT_EVERY == 0:
                self.save()
            if self.done % LOOK_EVERY == 0:
                print(f"\nstep {self.done}: {self.look()}", flush=True)
        self.save()


def export(training: Training) -> Path:
    """Write the fp32 model, its tokenizer and how it was trained as a transformers folder."""
    folder = training.work / "fp32"
    training.model.save_pretrained(folder)
    save_tokenizer(training.tokenizer, folder)
    facts = {
        "seed": SEED,
        "steps": training.done,
        "training_seconds": round(training.seconds),
        "parameters": sum(p.numel() for p in training.model.parameters()),
    }
    (training.work / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    return folder


def main() -> None:
    """Train, or go on training, and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=WORK, help="folder for checkpoints")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=1, help="leave one core free")
    parser.add_argument("--fresh", action="store_true", help="forget the checkpoint")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    training = Training(train_tokenizer(), options.steps, options.work)
    if training.checkpoint.exists() and not options.fresh:
        training.load()
    training.run()
    print(f"{export(training)}: {training.look(200)} after {training.seconds:.0f} s")


if __name__ == "__main__":
    main()
