"""The models that can be served here, of which one is at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sidecar.engine import Engine
from sidecar.errors import UnknownModel


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What is served, in the words of `/v1/models`: `id`, other names it answers to, what it can do."""

    id: str
    aliases: tuple[str, ...] = ()
    title: str = ""
    tools: bool = False
    vision: bool = False
    embeddings: bool = False
    image_hosts: tuple[str, ...] = ()

    def answers_to(self, name: str) -> bool:
        """Whether a request for `name` means this model."""
        return name == self.id or name in self.aliases


@dataclass(frozen=True, slots=True)
class Shelf:
    """Every model, and how an engine for one is made (not started; StartError where it can not be)."""

    models: tuple[ServedModel, ...]
    open: Callable[[ServedModel], Engine]

    def find(self, name: str) -> ServedModel:
        """The model of that name: a profile's name goes before the label of another's model.

        Raises UnknownModel that names what there is.
        """
        exact = [model for model in self.models if name in model.aliases]
        for model in (*exact, *self.models):
            if model.answers_to(name):
                return model
        known = ", ".join(model.id for model in self.models[:20])
        raise UnknownModel(f"There is no model of this name; there are: {known}.", param="model")


def only(model: ServedModel, engine: Engine) -> Shelf:
    """A shelf with one model, whose engine is there already."""
    return Shelf((model,), lambda _: engine)
