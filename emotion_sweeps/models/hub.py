"""Loading from a folder or the hub, with every way in which that fails told in one line.

`hub_options` is what every `from_pretrained` call gets: safetensors only is asked for by the callers, remote
code is off unless asked for, and the hub is left alone where it cannot be reached (a name lookup decides that
in milliseconds; the client's own retries would take 20 s a file). Files in the hub's cache still load then.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from emotion_sweeps.errors import UserError
from emotion_sweeps.models.sources import ModelSource

_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy")
_OFFLINE_REMEDY = (
    "give a local folder (model.path=/path/to/model), or fetch it once where there is a network "
    "and set HF_HUB_OFFLINE=1"
)


@cache
def hub_has_address() -> bool:
    """Whether the hub's name resolves; behind a proxy that is the proxy's business, so the answer is yes."""
    from huggingface_hub import constants

    if any(os.environ.get(name) for name in _PROXIES):
        return True
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def hub_options(source: ModelSource, trust_remote_code: bool) -> dict[str, Any]:
    """Keyword arguments that every `from_pretrained` call of this project shares."""
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if not source.is_local and not hub_has_address():
        options["local_files_only"] = True
    if source.revision is not None:
        options["revision"] = source.revision
    return options


@contextmanager
def loading_errors(source: ModelSource, part: str) -> Iterator[None]:
    """Turn what `from_pretrained` raises into one `UserError` that names the base, the cause and a remedy."""
    from huggingface_hub.errors import HfHubHTTPError
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, HfHubHTTPError, SafetensorError) as error:
        raise UserError(_explain(source, part, error)) from error


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without transformers' table of missing weights (checked here) and, off a terminal, its bars."""
    from transformers.utils import logging as transformers_logging

    logger = logging.getLogger("transformers.modeling_utils")
    bars = transformers_logging.is_progress_bar_enabled()
    logger.addFilter(_no_load_report)
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        logger.removeFilter(_no_load_report)
        if bars:
            transformers_logging.enable_progress_bar()


def _no_load_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()


def _explain(source: ModelSource, part: str, error: BaseException) -> str:
    """One line: what could not be loaded, why, and what to do about it."""
    text = " ".join(_chain(error)).lower()
    where = f"model.path={source.reference}"
    if "trust_remote_code" in text:
        return f"{where} runs code of its own; read it, then set model.trust_remote_code=true"
    if "gated" in text or "401 client" in text or "403 client" in text:
        return f"{where} is gated; accept its licence on its page and log in (hf auth login), or give a local folder"
    if isinstance(error, ImportError):
        return f"{where}: the {part} needs a package that is missing ({_first_sentence(error)}); install it"
    if "safetensors" in text and ("no file named" in text or "not appear to have" in text):
        return f"{where} has no safetensors weights, and pickled ones are refused; convert it with save_pretrained"
    if source.is_local:
        return f"{where}: cannot read the {part} ({_first_sentence(error)}); write the folder with save_pretrained"
    if "revision" in text and source.revision is not None and "connect" not in text:
        return f"model.revision={source.revision}: not in {where}; give a tag, branch or commit of it"
    if any(sign in text for sign in ("connect", "offline", "local cache", "disk cache", "couldn't reach", "timed out")):
        return f"{where}: the {part} is not in the cache and the hub cannot be reached; {_OFFLINE_REMEDY}"
    if "not a valid model identifier" in text or "404 client" in text or "repository not found" in text:
        return f"{where}: no such model on the hub; check the id, or {_OFFLINE_REMEDY}"
    return f"{where}: the {part} cannot be loaded ({_first_sentence(error)}); check the id, or {_OFFLINE_REMEDY}"


def _chain(error: BaseException) -> Iterator[str]:
    """The messages of an error and of its causes, with the errors' class names."""
    current: BaseException | None = error
    while current is not None:
        yield f"{type(current).__name__} {current}"
        current = current.__cause__ or current.__context__


def _first_sentence(error: BaseException, limit: int = 160) -> str:
    text = " ".join(str(error).split())
    return re.split(r"(?<=[a-z])\. ", text, maxsplit=1)[0][:limit]
