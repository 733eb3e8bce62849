"""Every way in which this service says no, as one tree.

    SidecarError
    ├─ RequestError          the caller can fix it
    │  ├─ BadRequest            a value that can not be used
    │  ├─ Unsupported           a known field that this engine does not offer
    │  ├─ ContextOverflow       prompt and answer do not fit the context
    │  └─ UnknownModel          a model that is not served here
    ├─ Unavailable           the same request may succeed later
    │  ├─ NotReady              the engine is loading, restarting or has failed
    │  ├─ NotLoaded             the model was let go of, or never asked for
    │  ├─ QueueFull             as many wait as may wait
    │  ├─ QueueTimeout          waited as long as one may wait
    │  ├─ MemoryPressure        memory is close to its budget
    │  └─ Draining              the service is stopping
    ├─ Cut                   ended from outside
    │  ├─ DeadlineExceeded      the request's own time is over
    │  └─ ClientGone            nobody is listening any more
    ├─ EngineError           our side failed
    │  ├─ OutOfMemory           this one request did not fit after all
    │  ├─ EngineCrashed         the engine's process died under it
    │  ├─ EngineStalled         the engine's process stopped answering
    │  ├─ EngineFault           a step of the engine raised
    │  └─ ProviderBroke         a hosted provider, in the engine's place, broke off its answer
    └─ StartError            the operator can fix it; only at start
       ├─ ConfigError           a setting or a profile
       ├─ WeightsMissing        no file, and nowhere to fetch it from
       │  └─ NotOnHub              the hub has no such model, or not for us
       ├─ WeightsDamaged        a file that is not what it should be
       ├─ NoMemoryNow           the device is full at the moment
       ├─ PortInUse             somebody else listens there
       └─ NothingToSoak         no sidecar that a load could be put on

This module knows nothing of HTTP: `sidecar.api.errors` gives each class its status, in one
table that a test holds complete. `StartError`s carry the exit code of the process instead
(sysexits.h, as systemd and Docker users know them).
"""

from __future__ import annotations

from typing import ClassVar


class SidecarError(Exception):
    """A named failure.

    `code` is stable and meant for programs; `message` is meant for people and says what was
    wrong, which value, what is accepted and what to do. `param` names the request's field,
    `retry_after_s` is a hint where waiting helps.
    """

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


class RequestError(SidecarError):
    """The caller can fix it."""

    code = "invalid_request"


class BadRequest(RequestError):
    """A value that can not be used."""

    code = "invalid_value"


class Unsupported(RequestError):
    """A field that is known, and refused rather than silently ignored."""

    code = "unsupported_parameter"


class ContextOverflow(RequestError):
    """Prompt and answer together do not fit the model's context."""

    code = "context_length_exceeded"

    @classmethod
    def of(cls, prompt_tokens: int, max_tokens: int, context: int) -> ContextOverflow:
        """The wording that OpenAI's clients recognise, with the three numbers."""
        asked = prompt_tokens + max_tokens
        return cls(
            f"This model's maximum context length is {context} tokens. However, you requested "
            f"{asked} tokens ({prompt_tokens} in the prompt, {max_tokens} in the completion). "
            "Please reduce the length of the prompt or of the completion.",
            param="max_tokens" if prompt_tokens < context else "prompt",
        )


class UnknownModel(RequestError):
    """A model that is not served here."""

    code = "model_not_found"


class Unavailable(SidecarError):
    """The same request may succeed later."""

    code = "unavailable"


class NotReady(Unavailable):
    """The engine is loading, restarting or has failed."""

    code = "model_not_ready"


class NotLoaded(Unavailable):
    """A model of the registry that nobody holds at the moment."""

    code = "model_not_loaded"

    @classmethod
    def of(cls, model: str) -> NotLoaded:
        """Says how it is loaded."""
        return cls(
            f'The model `{model}` is not loaded. POST /models/load {{"model": "{model}"}} loads it; with '
            "AUTOLOAD=1 a request does.",
            param="model",
            retry_after_s=30,
        )


class QueueFull(Unavailable):
    """As many requests wait as may wait."""

    code = "queue_full"


class QueueTimeout(Unavailable):
    """The request waited for its turn as long as it may."""

    code = "queue_timeout"


class MemoryPressure(Unavailable):
    """Memory is close to its budget, so nothing new is begun."""

    code = "memory_pressure"


class Draining(Unavailable):
    """The service is stopping and takes no new work."""

    code = "draining"


class Cut(SidecarError):
    """Ended from outside."""

    code = "cut"


class DeadlineExceeded(Cut):
    """The request's own time is over."""

    code = "timeout"

    @classmethod
    def of(cls, deadline_s: float) -> DeadlineExceeded:
        """Names the limit that was hit and how to move it."""
        return cls(
            f"The request did not finish within its {deadline_s:g} s. "
            "Ask for fewer tokens or raise `timeout` (300 s at most).",
            param="timeout",
        )


class ClientGone(Cut):
    """The client closed the connection."""

    code = "client_gone"


class EngineError(SidecarError):
    """Our side failed."""

    code = "engine_error"


class OutOfMemory(EngineError):
    """This one request did not fit into memory after all."""

    code = "out_of_memory"


class EngineCrashed(EngineError):
    """The engine's process died while it worked on the request."""

    code = "engine_crashed"


class EngineStalled(EngineError):
    """The engine's process lives but stopped answering."""

    code = "engine_stalled"


class EngineFault(EngineError):
    """A step of the engine raised; the engine itself goes on."""

    code = "engine_fault"


class ProviderBroke(EngineError):
    """A hosted provider answered in the engine's place, and broke off; nobody else can go on from there."""

    code = "provider_broke"

    @classmethod
    def of(cls, provider: str) -> ProviderBroke:
        """Says who it was."""
        return cls(f"The answer came from {provider}, which broke it off. Send the request again.")


class StartError(SidecarError):
    """The operator can fix it. `exit_code` follows sysexits.h."""

    code = "start_failed"
    exit_code: ClassVar[int] = 70


class ConfigError(StartError):
    """A setting or a profile that can not be used."""

    code = "bad_config"
    exit_code = 78


class WeightsMissing(StartError):
    """No model file here, and no place named to fetch it from."""

    code = "weights_missing"
    exit_code = 66


class NotOnHub(WeightsMissing):
    """The hub has no such repository, revision or file, or does not give it to us."""

    code = "not_on_hub"


class WeightsDamaged(StartError):
    """A model file that is not what its profile or its own header says."""

    code = "weights_damaged"
    exit_code = 65


class NoMemoryNow(StartError):
    """The device has no room at the moment; it may have later."""

    code = "no_memory_now"
    exit_code = 75


class PortInUse(StartError):
    """Somebody else listens on the address."""

    code = "port_in_use"
    exit_code = 71


class NothingToSoak(StartError):
    """No sidecar answers there, or the one that was started has ended."""

    code = "nothing_to_soak"
    exit_code = 69


def tree(root: type[SidecarError] = SidecarError) -> dict[str, type[SidecarError]]:
    """Every class below `root`, itself included, by its `code`."""
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= tree(child)
    return found


def revive(code: str, message: str, param: str | None = None) -> SidecarError:
    """The error that another process named by `code`; an unknown code is an EngineFault."""
    return tree().get(code, EngineFault)(message, param=param)
