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
from sidecar.chat_form import changed_call, changed_functions
from sidecar.control_tokens import spelled
from sidecar.engines.llama_bodies import message_fields, tool_fields
from sidecar.engines.llama_calls import BEGUN
from sidecar.engines.llama_client import LlamaClient
from sidecar.errors import BadRequest, EngineFault
from sidecar.generation import GenerationRequest, Message, Tools
from sidecar.gguf_vocabulary import Vocabulary


class Prompts:
    """Prices prompts with the help of one llama-server."""

    def __init__(self, client: LlamaClient, vocabulary: Vocabulary) -> None:
        self._client = client
        self._vocabulary = vocabulary
        self._control = spelled(vocabulary.control)

    async def ids(self, request: GenerationRequest, room: int) -> tuple[int, ...]:
        """The prompt's ids, at least one. Raises BadRequest naming the field, or ContextOverflow."""
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

    def unmarked(self, request: GenerationRequest) -> GenerationRequest:
        """The conversation with every spelled control token broken by an invisible character.

        For the route that takes text alone: there, nothing else keeps words from becoming a turn.
        """
        if self._control is None:
            return request
        turns = tuple(self._with(message, "\u200b") for message in request.messages)
        return replace(request, prompt=turns, tools=self._tools(request.tools, "\u200b"))

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
        turns = [message_fields(replace(self._with(m, mark), images=())) for m in request.messages]
        try:
            answer = await self._client.post(
                "/apply-template", {"messages": turns, **tool_fields(self._tools(request.tools, mark))}
            )
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
        answer = await self._client.post("/tokenize", body)
        tokens = answer.get("tokens")
        if not isinstance(tokens, list) or not set(map(type, tokens)) <= {int}:
            raise EngineFault("The engine sent no token ids.")
        return tuple(tokens)

    def _with(self, message: Message, mark: str) -> Message:
        def change(text: str) -> str:
            return self._marked(text, mark)

        return replace(
            message,
            content=change(message.content),
            name=message.name and change(message.name),
            tool_calls=tuple(changed_call(call, change) for call in message.tool_calls),
            tool_call_id=message.tool_call_id and change(message.tool_call_id),
        )

    def _tools(self, tools: Tools | None, mark: str) -> Tools | None:
        if tools is None:
            return None
        return replace(
            tools, functions=changed_functions(tools.functions, lambda text: self._marked(text, mark))
        )

    def _marked(self, text: str, mark: str) -> str:
        return self._control.sub(lambda match: match[1] + mark, text) if self._control else text
