"""What the hub's client raises, as one line that says what to do."""

from __future__ import annotations

import errno
from pathlib import Path

from sidecar.errors import ConfigError, NotOnHub, StartError, WeightsMissing
from sidecar.transfer import in_short

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
TOKEN = "HF_TOKEN"  # noqa: S105 - the variable's name


def explained(error: Exception, what: str, page: str, folder: Path) -> StartError:
    """`what` was wanted from `page` into `folder`; NotOnHub only if the hub says that it is not there
    or not for us, so that no passing failure ends in another model."""
    import httpx2
    from huggingface_hub import errors as hub

    if isinstance(error, StartError):
        return error
    if isinstance(error, hub.HfHubHTTPError):
        return _answered(error, what, page)
    if isinstance(error, hub.HFValidationError):
        return ConfigError(f"{what}: no name that the hub knows; owner/name is expected.")
    if isinstance(error, hub.OfflineModeIsEnabled):
        return WeightsMissing(
            f"{what} is not here, and HF_HUB_OFFLINE forbids to ask the hub. Unset it, or fetch the model "
            "where there is a connection and copy the cache."
        )
    if isinstance(error, httpx2.TransportError):
        return WeightsMissing(
            f"{what}: no connection to {page} ({in_short(error)}). Check the network, HF_ENDPOINT and "
            "HTTPS_PROXY; what was fetched is kept, and the next try goes on from it."
        )
    if isinstance(error, OSError):
        return _stored(error, what, folder)
    return WeightsMissing(f"{what}: {in_short(error)}")


def is_unreachable(error: StartError) -> bool:
    """Whether it was made of a line that could not be had."""
    import httpx2

    return isinstance(error.__cause__, httpx2.TransportError)


def _answered(error: Exception, what: str, page: str) -> StartError:
    from huggingface_hub import errors as hub

    assert isinstance(error, hub.HfHubHTTPError)
    status = error.response.status_code
    if isinstance(error, hub.GatedRepoError):
        return NotOnHub(
            f"{what} is gated ({status}). Ask for access on {page}, and set {TOKEN} to a token of that "
            "account."
        )
    if isinstance(error, hub.RevisionNotFoundError):
        return NotOnHub(f"{what}: the hub has no such revision ({status}). Correct it, or leave it out.")
    if isinstance(error, hub.RemoteEntryNotFoundError):
        return NotOnHub(f"{what}: the hub has no such file ({status}). Its files are listed on {page}.")
    if isinstance(error, hub.RepositoryNotFoundError):
        return NotOnHub(
            f"{what}: the hub has no such repository, or does not show it ({status}). Check the name on "
            f"{page}; for a private one set {TOKEN}."
        )
    if status == 401:
        return WeightsMissing(
            f"{what}: the hub does not accept {TOKEN} (401). Make a new token, or unset it."
        )
    if status == 403:
        return WeightsMissing(f"{what}: the hub refuses it (403). Check the rights of {TOKEN}.")
    return WeightsMissing(f"{what}: the hub answers {status}. Try again later; what was fetched is kept.")


def _stored(error: OSError, what: str, folder: Path) -> StartError:
    if error.errno in FULL:
        return WeightsMissing(
            f"{what}: {folder} is full ({error.strerror}). Make room; what was fetched is kept, and the next "
            "try goes on from it."
        )
    if error.errno in FORBIDDEN:
        return WeightsMissing(
            f"{what}: {folder} can not be written ({error.strerror}). Give this user the right, or set "
            "HF_HOME (LLM_CACHE_DIR for a model_root) to a folder that can be."
        )
    return WeightsMissing(f"{what}: {in_short(error)}")
