"""A second, shorter training on what is learned last: `python -m tools.embedded_model.polish`.

Goes on from the trained fp32 model with rounded weights and a smaller, falling learning rate.
Two thirds of its rows are sums, copies and tool calls; the rest keeps everything else alive.
"""

import argparse
import json
import math
import time
from pathlib import Path
from random import Random

import torch
from transformers import LlamaForCausalLM

from tools.embedded_model.batches import LONGEST_SHORT, batch, groups_by_length
from tools.embedded_model.evaluate import load_tokenizer
from tools.embedded_model.fourbit import rounded_weights
from tools.embedded_model.muon import Muon
from tools.embedded_model.progress import Progress
from tools.embedded_model.text import SEED, Raw, Row, rows
from tools.embedded_model.tokens import Encoded, encode_all
from tools.embedded_model.train import MATRIX_RATE, OTHER_RATE, WORK, loss_of

CANDIDATES = 60_000
COPY_VERBS = ("repeat", "say", "echo", "please repeat", "copy")
SHARE_OF_EASY = 0.2
RATE = 0.5


def is_hard(row: Row) -> bool:
    """Whether a row holds a sum, words to copy or tools."""
    if isinstance(row, Raw):
        question, answer = row.prompt, row.answer
    elif row.tools:
        return True
    else:
        question, answer = (str(message["content"]) for message in row.messages[-2:])
    return " = " in answer or question.strip().lower().startswith(COPY_VERBS)


def chosen(rng: Random) -> list[Row]:
    """Rows of the training text, most of them hard."""
    return [row for row in rows(CANDIDATES) if is_hard(row) or rng.random() < SHARE_OF_EASY]


class Polishing:
    """The model and its optimisers on their way down."""

    def __init__(self, model: LlamaForCausalLM, seconds: float) -> None:
        self.model, self.seconds = model, seconds
        inner = [p for p in model.model.layers.parameters() if p.ndim == 2]
        known = {id(p) for p in inner}
        other = [p for p in model.parameters() if id(p) not in known]
        self.muon = Muon(inner, MATRIX_RATE)
        self.adam = torch.optim.AdamW(other, OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.0)

    def step(self, encoded: list[Encoded], done: float) -> float:
        """One update at `done` (0 to 1) of the way; the loss."""
        share = RATE * min(1.0, done * 20 + 0.05) * 0.5 * (1 + math.cos(math.pi * done))
        for optimizer, peak in ((self.muon, MATRIX_RATE), (self.adam, OTHER_RATE)):
            optimizer.param_groups[0]["lr"] = peak * share
        with rounded_weights(self.model, active=True):
            loss = loss_of(self.model, batch(encoded))
            torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.adam.param_groups[0]["params"], 1.0)
        for optimizer in (self.muon, self.adam):
            optimizer.step()
            optimizer.zero_grad()
        return float(loss.detach())

    def run(self, groups: list[list[Encoded]]) -> int:
        """As many steps as fit into the time; how many they were."""
        bar, started = Progress("polishing", int(self.seconds)), time.monotonic()
        for steps, group in enumerate(groups, 1):
            spent = time.monotonic() - started
            if spent >= self.seconds:
                return steps
            loss = self.step(group, spent / self.seconds)
            bar.show(int(spent), f"step {steps} loss {loss:.3f}")
        return len(groups)


def main() -> None:
    """Polish build/embedded_model/fp32 in place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--seconds", type=float, default=170)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    rng = Random(SEED)
    encoded = encode_all(load_tokenizer(options.work / "fp32"), chosen(rng), LONGEST_SHORT)
    rng.shuffle(encoded)
    model = LlamaForCausalLM.from_pretrained(options.work / "fp32", dtype=torch.float32)
    steps = Polishing(model, options.seconds).run(list(groups_by_length(encoded, rng)))
    model.save_pretrained(options.work / "fp32")
    path = options.work / "training.json"
    facts = json.loads(path.read_text())
    facts |= {"polish_steps": steps, "training_seconds": round(facts["training_seconds"] + options.seconds)}
    path.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
