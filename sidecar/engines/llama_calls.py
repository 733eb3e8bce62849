"""A call that must be made, out of llama-server's `/completion`. Pure.

The prompt ends with the tag that begins a call, and a schema holds what follows to one call, so what
comes is its object alone.
"""

from __future__ import annotations

from dataclasses import replace

from sidecar.engines.llama_frames import CompletionChoice
from sidecar.generation import Delta, Event, Finished, GenerationRequest, JsonFormat, ToolDelta
from sidecar.toolcalls import OPEN, CallReader

# What stands at the end of the prompt.
BEGUN = f"{OPEN}\n"


class CallChoice(CompletionChoice):
    """One choice: its frames become the pieces of one call. Stop strings are not looked for in a call."""

    def __init__(self, choice: int, request: GenerationRequest) -> None:
        super().__init__(choice, replace(request, stop=(), format=JsonFormat()))
        names = {function.name for function in request.offered}
        self._reader = CallReader(f"{request.id} {choice}", names, parallel=False)
        self._reader.feed(BEGUN)

    def feed(self, frame: bytes) -> list[Event]:
        """The events of one frame. Raises the SidecarError that the frame reports."""
        return [event for found in super().feed(frame) for event in self._of_call(found)]

    def _of_call(self, event: Event) -> list[Event]:
        if isinstance(event, Delta):
            pieces = self._reader.feed(event.text)
            return [Delta(event.choice, "", tool=piece) for piece in pieces if isinstance(piece, ToolDelta)]
        if isinstance(event, Finished):
            return [Finished(event.choice, "tool_calls" if self._reader.whole else "length")]
        return [event]
