"""What has to be there before llama-server is started: its files, its flags, its command line."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sidecar import gguf_vocabulary
from sidecar.budget import Plan
from sidecar.engines import fetching, llama_binary
from sidecar.engines.inherited import inherited
from sidecar.fetch import Job
from sidecar.generation import EngineStats
from sidecar.gguf_vocabulary import Vocabulary
from sidecar.llama_args import LlamaFiles, llama_args
from sidecar.planning import Target, llama_plan
from sidecar.profiles import Profile, clamped

log = logging.getLogger(__name__)

Report = Callable[[str, float | None, str], None]
Command = Callable[[int], Sequence[str]]
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Launch:
    """One profile's llama-server. `wanted_device` is auto, cpu, cuda or cuda:N.

    `held_to` says what it may take, on cards or not; it looks at them, which may block, within a deadline.
    """

    profile: Profile
    binary: str
    fetch: Job
    wanted_device: str = "auto"
    environment: Mapping[str, str] = field(default_factory=dict)
    held_to: Callable[[bool], Target] = lambda on_gpu: Target("cuda" if on_gpu else "cpu", None)
    device: str = "cpu"
    about: tuple[tuple[str, str], ...] = ()
    plan: Plan | None = None
    _vocabulary: Vocabulary | None = None

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together, of one request."""
        return self.profile.context

    @property
    def slots(self) -> int:
        """Requests at the same time."""
        return self.profile.slots

    @property
    def default_max_tokens(self) -> int:
        """The length of an answer for which the request asks nothing."""
        return self.profile.default_max_tokens

    @property
    def ready_deadline_s(self) -> float:
        """How long loading may take."""
        assert self.profile.llamacpp is not None
        return self.profile.llamacpp.ready_deadline_s

    @property
    def title(self) -> str:
        """What is being loaded."""
        return self.profile.display_name or self.profile.name

    async def prepare(self, report: Report) -> Command:
        """Ask the binary, plan, fetch what is missing, check it: the command line for a port.

        Raises StartError for what only the operator can mend, before anything is started, and for what
        does not fit before anything is fetched.
        """
        binary = await llama_binary.ask(self.binary, {**inherited(), **self.environment})
        on_gpu = binary.on_gpu(self.wanted_device)
        held_to = await asyncio.to_thread(self.held_to, on_gpu)
        job = replace(self.fetch, held_to=held_to)
        files = await fetching.fetched(job, lambda part, text: report("download", part, text))
        report("load", None, files.model.name)
        self._vocabulary = await asyncio.to_thread(gguf_vocabulary.read, files.model)
        self._clamp(self._vocabulary.made_for)
        command = _command(self.profile, files, binary, on_gpu)
        command(0)  # what this build does not take is said now
        self.plan = await asyncio.to_thread(llama_plan, self.profile, files, held_to)
        self.device = "cuda" if on_gpu else "cpu"
        self.about = (
            ("engine", f"llama-server {binary.flags.version}".strip()),
            ("model", f"{files.model.name}, {files.model.stat().st_size / 2**20:.0f} MiB"),
            *((("images", files.mmproj.name),) if files.mmproj else ()),
            *((("cards", "; ".join(binary.devices)),) if on_gpu else ()),
            *((("plan", self.plan.sentence()),) if self.plan else ()),
        )
        return command

    def _clamp(self, made_for: int | None) -> None:
        """llama-server would set the whole context aside, and serve what the model was made for."""
        asked, self.profile = self.profile.context, clamped(self.profile, made_for)
        if self.context < asked:
            log.warning("the model was made for %d tokens of context, not for %d", self.context, asked)

    def vocabulary(self) -> Vocabulary:
        """Of the model that `prepare` found."""
        assert self._vocabulary is not None
        return self._vocabulary

    def look(self, pid: int) -> EngineStats:
        """What the process holds now."""
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            pages = 0
        return EngineStats(resident_bytes=pages * PAGE_BYTES, cuda_available=self.device != "cpu")


def _command(profile: Profile, files: LlamaFiles, binary: llama_binary.Binary, on_gpu: bool) -> Command:
    def command(port: int) -> Sequence[str]:
        return (binary.path, *llama_args(profile, files, binary.flags, port=port, on_gpu=on_gpu))

    return command
