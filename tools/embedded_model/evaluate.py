"""The share of held-out questions that get exactly the right answer.

`python -m tools.embedded_model.evaluate FOLDER ...`
Greedy decoding; an answer is right when it is the expected text and nothing more. Prints the
share for each folder given, the wrong answers, and how many held-out questions equal a line of
the training text (none may).
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, GPTQConfig, PreTrainedModel

from tools.embedded_model.conversations import Chat
from tools.embedded_model.progress import Progress
from tools.embedded_model.text import Question, fold, held_out, long_rows, rows, training_lines
from tools.embedded_model.tokens import render

LONGEST_ANSWER = 420

Wrong = tuple[Question, str]


def prompt_of(question: Question) -> str:
    """The text that the model is given: raw, or rendered by the chat template."""
    if question.prompt is not None:
        return question.prompt
    return render(Chat(list(question.messages), list(question.tools) or None), ask=True)


@torch.inference_mode()
def answer(model: PreTrainedModel, tokenizer: Tokenizer, prompt: str, longest: int) -> str:
    """The greedy answer to a prompt, without the token that ends it."""
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    mask = torch.ones_like(ids)
    generate: Any = model.generate
    out = generate(ids, attention_mask=mask, max_new_tokens=longest, do_sample=False)
    return tokenizer.decode(out[0, ids.size(1) :].tolist(), skip_special_tokens=True)


def share_right(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    questions: list[Question],
    *,
    longest: int = LONGEST_ANSWER,
    show: bool = False,
) -> tuple[float, list[Wrong]]:
    """The share of questions answered exactly right, and the wrong answers."""
    bar = Progress("asking", len(questions)) if show else None
    wrong: list[Wrong] = []
    for at, question in enumerate(questions, 1):
        said = answer(model, tokenizer, prompt_of(question), longest).strip()
        if said != question.answer.strip():
            wrong.append((question, said))
        if bar:
            bar.show(at)
    return 1 - len(wrong) / len(questions), wrong


def overlap(row_count: int, long_row_count: int) -> int:
    """How many held-out questions equal a training line, case and punctuation apart."""
    lines = {fold(line) for row in rows(row_count) for line in training_lines(row)}
    lines |= {fold(line) for row in long_rows(long_row_count) for line in training_lines(row)}
    return sum(fold(question.text) in lines for question in held_out())


def load(folder: Path) -> PreTrainedModel:
    """The model of a folder in fp32 on the CPU, GPTQ or not."""
    options: dict[str, Any] = {"dtype": torch.float32}
    if (folder / "quantize_config.json").exists():
        options["quantization_config"] = GPTQConfig(bits=4, backend="gptq_torch_fused")
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, **options)
    model.train(mode=False)
    return model


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def _report(folder: Path, count: int) -> None:
    share, wrong = share_right(load(folder), load_tokenizer(folder), held_out(count), show=True)
    print(f"{folder}: {share:.1%} of {count} right")
    print("wrong by task:", dict(Counter(question.task for question, _ in wrong)))
    for question, said in wrong[:20]:
        print(f"  {question.text!r}\n    wanted {question.answer!r}\n    said   {said!r}")


def main() -> None:
    """Evaluate the folders named on the command line."""
    from tools.embedded_model.batches import LONG_ROWS, ROWS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"held-out questions equal to a training line: {overlap(ROWS, LONG_ROWS)}")
    for folder in options.folders:
        _report(folder, options.count)


if __name__ == "__main__":
    main()
