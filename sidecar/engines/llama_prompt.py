"""Prompts as token ids, by llama-server's own template and tokenizer.

In a conversation only the template writes control tokens. Where a client's words spell one
(`<|im_end|>`), a mark is put behind its first character before the template is rendered, and the
rendered text is tokenised piece by piece between the marks: the same as in `sidecar.worker.tokens`.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sidecar import context
from sidecar.chat_form import Change, changed_call, changed_functions
from sidecar.control_tokens import spelled
from sidecar.engines.llama_bodies import message_fields, tool_fields
from sidecar.engines.llama_calls import BEGUN
from sidecar.engines.llama_client import LlamaClient
from sidecar.engines.llama_marks import Marks, mark_for, marked
from sidecar.errors import BadRequest, EngineFault, Unsupported
from sidecar.generation import Function, GenerationRequest, Message, Tools
from sidecar.gguf_vocabulary import Vocabulary


class Prompts:
    """Prices prompts with the help of one llama-server. `has_tools` is believed until it was looked for."""

    def __init__(self, client: LlamaClient, vocabulary: Vocabulary) -> None:
        self._client = client
        self._vocabulary = vocabulary
        self._control = spelled(vocabulary.control)
        self.has_tools = True

    async def look_for_tools(self) -> None:
        """Have it render a function: a template that does not show it would leave the model without."""
        probe = Tools((Function("probe_offer"),))
        try:
            rendered = await self._rendered(GenerationRequest("", (Message("user", "hi"),), tools=probe), "")
        except BadRequest:
            rendered = ""
        self.has_tools = "probe_offer" in rendered

    async def ids(self, request: GenerationRequest, room: int) -> tuple[int, ...]:
        """The prompt's ids, at least one. Raises BadRequest naming the field, or ContextOverflow."""
        if request.offered and not self.has_tools:
            raise Unsupported(
                "`tools` are not supported by this model: its chat template does not show them to it.",
                param="tools",
            )
        context.check_biases(request.sampling.logit_bias, self._vocabulary.size)
        context.check_count(len(request.token_ids), request.max_tokens, room)
        texts = [message.content for message in request.messages]
        if isinstance(request.prompt, str):
            texts = [request.prompt]
        context.check_length(texts, self._vocabulary.longest_token_bytes, request.max_tokens, room)
        ids = await self._ids(request, room)
        if not ids:
            raise BadRequest("The prompt is empty: at least one token is needed.", param="prompt")
        return ids

    def broken(self, request: GenerationRequest) -> tuple[GenerationRequest, Marks]:
        """The conversation with every spelled control token broken, and how its answer is mended.

        For the route that takes text alone: there, nothing else keeps words from becoming a turn.
        """
        control = self._control
        if control is None:
            return request, Marks()
        marks = mark_for(_texts(request), control, self._vocabulary.control)
        return _changed(request, lambda text: marked(text, control, marks.mark)), marks

    async def _ids(self, request: GenerationRequest, room: int) -> tuple[int, ...]:
        if isinstance(request.prompt, str):
            return await self._tokenised([request.prompt])
        if not request.messages:
            context.check_ids(request.token_ids, self._vocabulary.size)
            return request.token_ids
        mark = f"\uf8ff{secrets.token_hex(8)}\uf8ff"
        rendered = await self._rendered(request, mark)
        pieces = (rendered + BEGUN if request.must_call and not request.images else rendered).split(mark)
        # Functions can be as long as any text.
        context.check_length(pieces, self._vocabulary.longest_token_bytes, request.max_tokens, room)
        return await self._tokenised(pieces)

    async def _rendered(self, request: GenerationRequest, mark: str) -> str:
        told = _changed(request, lambda text: self._marked(text, mark))
        turns = [message_fields(replace(message, images=())) for message in told.messages]
        try:
            answer = await self._client.ask("/apply-template", {"messages": turns, **tool_fields(told.tools)})
        except (BadRequest, EngineFault) as error:  # a template that says no is a 500 there
            raise BadRequest(
                f"The model's chat template refuses these messages: {error.message}", param="messages"
            ) from None
        prompt = answer.get("prompt")
        if not isinstance(prompt, str):
            raise EngineFault("The engine rendered no prompt.")
        return prompt

    async def _tokenised(self, pieces: Sequence[str]) -> tuple[int, ...]:
        """Each piece on its own; what stands before a text (BOS) stands before the first."""
        body: dict[str, Any] = {"content": list(pieces), "add_special": True, "parse_special": True}
        answer = await self._client.ask("/tokenize", body)
        tokens = answer.get("tokens")
        if not isinstance(tokens, list) or not set(map(type, tokens)) <= {int}:
            raise EngineFault("The engine sent no token ids.")
        return tuple(tokens)

    def _marked(self, text: str, mark: str) -> str:
        return marked(text, self._control, mark) if self._control else text


def _changed(request: GenerationRequest, change: Change) -> GenerationRequest:
    """The conversation, every text of it that a client wrote changed."""
    turns, tools = tuple(_changed_turn(turn, change) for turn in request.messages), request.tools
    if tools is not None:
        tools = replace(tools, functions=changed_functions(tools.functions, change))
    return replace(request, prompt=turns, tools=tools)


def _texts(request: GenerationRequest) -> list[str]:
    """Every text of the conversation that a client wrote."""
    told: list[str] = []

    def seen(text: str) -> str:
        told.append(text)
        return text

    _changed(request, seen)
    return told


def _changed_turn(turn: Message, change: Change) -> Message:
    return replace(
        turn,
        content=change(turn.content),
        name=turn.name and change(turn.name),
        tool_calls=tuple(changed_call(call, change) for call in turn.tool_calls),
        tool_call_id=turn.tool_call_id and change(turn.tool_call_id),
    )
