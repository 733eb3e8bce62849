"""Text to token ids and back: prompts, chat templates, incremental detokenising.

A raw prompt is the model's input to the letter, control tokens included: whoever writes one means
it. In a conversation only the template writes control tokens. Where a user's words spell one
(`<|im_end|>`), a mark is put behind its first character before the template is rendered, and the
rendered text is tokenised piece by piece between the marks: the words arrive as the words they
are, and any other text is tokenised exactly as transformers would. The same holds for every text in
functions, calls and what tools returned.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from sidecar import chat_form, toolcalls
from sidecar.chat_form import Change
from sidecar.context import check_ids, check_length
from sidecar.control_tokens import spelled
from sidecar.errors import BadRequest, Unsupported
from sidecar.generation import Function, Message, TokenLogprob, ToolCall
from sidecar.stops import StopMatcher
from sidecar.worker.messages import Prepare


class Tokens:
    """One model's tokenizer. Safe to use from several threads."""

    def __init__(self, pretrained: Any, vocabulary: int) -> None:
        """`pretrained` is transformers' fast tokenizer; `vocabulary` counts the model's logits."""
        self._pretrained = pretrained
        self.backend: Tokenizer = pretrained.backend_tokenizer
        self.vocabulary = vocabulary
        # As UTF-8 a name is never shorter than what it stands for, in any kind of vocabulary.
        self.longest_token_bytes = max(len(name.encode()) for name in self.backend.get_vocab())
        self._byte_level = "ByteLevel" in str(self.backend.decoder)
        added = self.backend.get_added_tokens_decoder()
        tags = (toolcalls.OPEN, toolcalls.CLOSE)
        # Shown although they are special in some vocabularies: without them a call is no call.
        self.tags = {id: t.content for id, t in added.items() if t.special and t.content in tags}
        self._control = spelled(token.content for token in added.values() if token.special)
        self.has_tools = self._has_tools()

    def encode(self, prepare: Prepare, room: int | None = None) -> tuple[int, ...]:
        """The prompt's ids, at least one. Raises BadRequest naming the field.

        ContextOverflow for a conversation that can not fit `room` tokens, before it is tokenised.
        """
        if prepare.messages is not None:
            ids = self._chat(prepare, prepare.messages, room)
        elif prepare.token_ids is not None:
            check_ids(prepare.token_ids, self.vocabulary)
            ids = list(prepare.token_ids)
        else:
            ids = self.backend.encode(prepare.text or "").ids
        if not ids:
            raise BadRequest("The prompt is empty: at least one token is needed.", param="prompt")
        return tuple(ids)

    def logprob(self, scored: Sequence[tuple[int, float]]) -> TokenLogprob:
        """The sampler's (id, log probability) pairs as text: the chosen one, then the others."""
        (token, score), *others = scored
        text, raw = self._piece(token)
        return TokenLogprob(text, raw, score, tuple((*self._piece(i), s) for i, s in others))

    def _chat(self, prepare: Prepare, messages: Sequence[Message], room: int | None) -> list[int]:
        offered = () if prepare.tools is None else prepare.tools.offered
        if not self._pretrained.chat_template:
            raise BadRequest(
                "This model has no chat template; use /v1/completions or /generate.",
                param="messages",
            )
        if offered and not self.has_tools:
            raise Unsupported(
                f"`tools` are not supported by this model: its chat template writes no `{toolcalls.OPEN}`.",
                param="tools",
            )
        # Letters and digits, which no template writes in another way.
        mark = secrets.token_hex(16)
        pieces = self._render(messages, offered, lambda text: self._marked(text, mark)).split(mark)
        if room is not None:  # functions can be as long as any text
            check_length(pieces, self.longest_token_bytes, prepare.max_tokens, room)
        encoded = [self.backend.encode(piece, add_special_tokens=False).ids for piece in pieces]
        return [token for ids in encoded for token in ids]

    def _has_tools(self) -> bool:
        """Whether the template shows functions, and writes calls in the form that `toolcalls` reads."""
        call = ToolCall("call_0", "probe_call", "{}")
        turns = (
            Message("user", "hi"),
            Message("assistant", "", tool_calls=(call,)),
            Message("tool", "hi", tool_call_id=call.id),
        )
        try:
            rendered = self._render(turns, (Function("probe_offer"),), chat_form.same)
        except BadRequest:
            return False
        reader = toolcalls.CallReader("", (call.name,))
        reader.feed(rendered)
        return "probe_offer" in rendered and reader.whole == 1

    def _render(self, messages: Sequence[Message], offered: Sequence[Function], change: Change) -> str:
        # Several vocabularies have a template of its own for tools, which alone writes calls.
        called = any(message.tool_calls or message.role == "tool" for message in messages)
        shown = chat_form.functions(offered, change) if offered or called else None
        try:
            return str(
                self._pretrained.apply_chat_template(
                    [_turn(message, change) for message in messages],
                    tools=shown,
                    tokenize=False,
                    add_generation_prompt=True,
                )
            )
        except Exception as error:  # jinja2's errors, and whatever the template itself raises
            raise BadRequest(
                f"The model's chat template refuses these messages: {str(error)[:200]}",
                param="messages",
            ) from error

    def _marked(self, text: str, mark: str) -> str:
        return self._control.sub(lambda match: match[1] + mark, text) if self._control else text

    def _piece(self, token: int) -> tuple[str, bytes]:
        """A token's text (replacement characters where it is part of a character) and its bytes."""
        piece = self.backend.id_to_token(token) or ""
        if byte := _BYTE_TOKEN.fullmatch(piece):
            raw = bytes([int(byte[1], 16)])
        elif self._byte_level and all(c in _BYTE_OF for c in piece):
            raw = bytes(_BYTE_OF[c] for c in piece)
        else:
            raw = self.backend.decode([token], skip_special_tokens=False).encode()
        return raw.decode("utf-8", errors="replace"), raw


def _turn(message: Message, change: Change) -> dict[str, Any]:
    """A message as templates read it: of what it has not, there is no key."""
    turn: dict[str, Any] = {"role": message.role, "content": change(message.content)}
    if message.name is not None:
        turn["name"] = change(message.name)
    if message.tool_call_id is not None:
        turn["tool_call_id"] = change(message.tool_call_id)
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": change(call.id),
                "type": "function",
                "function": {"name": call.name, "arguments": chat_form.arguments(call.arguments, change)},
            }
            for call in message.tool_calls
        ]
    return turn


class Detokenizer:
    """The text of one choice as it grows: whole characters only, and nothing of a stop string.

    It goes on from the prompt: with some vocabularies the first word's space depends on that.
    """

    def __init__(self, tokens: Tokens, stops: Sequence[str], prompt_ids: Sequence[int] = ()) -> None:
        self._backend = tokens.backend
        self._tags = tokens.tags
        tail = list(prompt_ids[-_PROMPT_TAIL:])
        # Behind half a character the stream would hold, and then show, the prompt itself.
        if self._backend.decode(tail).endswith("\ufffd"):
            tail = []
        self._stream = DecodeStream(ids=tail, skip_special_tokens=True)
        self._matcher = StopMatcher(stops)

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended the text."""
        return self._matcher.hit

    def feed(self, token: int) -> str:
        """The text that this token made certain, perhaps none."""
        piece = self._tags.get(token) or self._stream.step(self._backend, token)
        return self._matcher.feed(piece) if piece else ""

    def flush(self) -> str:
        """What was held back in case a stop string followed. A cut character is left out."""
        return self._matcher.flush()


# Enough tokens to hold the last whole word of a prompt.
_PROMPT_TAIL = 8


def _byte_of() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes (openai/gpt-2, encoder.py), inverted."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


_BYTE_OF = _byte_of()
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # SentencePiece's byte fallback
