"""Downloading checkpoints: streamed, resumed, checked, and only then put in their place."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import portalocker

from zoo.errors import InputError
from zoo.files import sha256_of, writing
from zoo.notes import note
from zoo.weights.cards import Pin, WeightCard, check_sha256, read_lock, write_pin
from zoo.weights.detect import fitting
from zoo.weights.read import read_checkpoint

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30
#: Pauses before a broken transfer goes on from where it stopped.
RETRY_PAUSES_S = (1.0, 3.0, 10.0)

#: Told the bytes that are there, and how many there will be where the server says so.
Progress = Callable[[int, int | None], None]


class WebPageError(OSError):
    """A page in place of a file; asking again would give it again."""


class TransferError(OSError):
    """A transfer that broke; what came is kept, and the next one goes on from there."""


def pull(card: WeightCard, source: str | None = None, progress: Progress = lambda done, total: None) -> Path:
    """Fetches the weights of `card`, checks them, puts them in their place and pins their hash.

    Args:
        card: what to fetch.
        source: http(s) address, `hf:OWNER/REPO/FILE`, or a file; by default the card's own.
        progress: called as bytes come in.

    Returns:
        The checkpoint's path. A file that is there already and has the right hash, or that another process is fetching,
        is left as it is, unless a source is given: what comes from there takes its place.

    Raises:
        InputError: no network, a refused or broken transfer, another hash than the pinned one, or not this model's
            weights. Nothing is put in place then; a broken transfer is resumed by the next call. Or a pin that cannot
            be written, of a file that is in its place.
    """
    if source is None and card.path.is_file():
        return _found(card)
    address = source or card.url
    if address is None:
        raise InputError(card.name, "no address that a program may download from", card.by_hand)
    part = card.path.with_name(f".{card.file}.part")
    read_lock()  # a damaged one is told of before anything is fetched
    with _alone(part):
        if source is None and card.path.is_file():
            return _found(card)
        _put_in_place(card, address, part, progress)
    return card.path


def _found(card: WeightCard) -> Path:
    """The path of the file that is in its place, checked and pinned."""
    _pin(card, _checked(card, card.path), "found in place")
    return card.path


def _put_in_place(card: WeightCard, source: str, part: Path, progress: Progress) -> None:
    """Fetches, checks and pins; nobody else may be at `part`."""
    try:
        fetch(source, part, progress)
    except (OSError, http.client.HTTPException) as error:
        raise InputError(source, f"no transfer ({_reason(error)})", f"a connection; or {card.by_hand}") from error
    try:
        digest = _checked(card, part)
    except InputError as error:
        # It came whole and is wrong: going on from it would not mend it.
        _discard(part)
        raise InputError(source, error.found, error.expected) from error
    with writing(card.path):
        part.replace(card.path)
        _discard(part)
    _pin(card, digest, source)


@contextlib.contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Waits until no other process fetches to `part`, whose folder is made if it is not there."""
    lock = part.with_name(f"{part.name}.lock")
    with contextlib.ExitStack() as held:
        with writing(lock, (OSError, portalocker.LockException)):
            lock.parent.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(portalocker.Lock(lock, flags=portalocker.LOCK_EX | portalocker.LOCK_NB, timeout=0))
            except portalocker.AlreadyLocked:
                note(f"{part}: another process is at it; waiting for that")
                held.enter_context(portalocker.Lock(lock, flags=portalocker.LOCK_EX))
        yield


def fetch(source: str, part: Path, progress: Progress) -> None:
    """Brings `source` to `part`, going on from what is there; transfers that break are tried again, not the first call.

    Raises:
        OSError, HTTPException: it could not be had.
    """
    address = hub_address(source) if source.startswith("hf:") else source
    if urllib.parse.urlsplit(address).scheme not in ("http", "https"):
        with Path(address).open("rb") as file, writing(part):
            # What is copied in part must not be gone on from as if the server had sent it.
            _mark_of(part).unlink(missing_ok=True)
            with part.open("wb") as stream:
                shutil.copyfileobj(file, stream)
        return
    for attempt, pause_s in enumerate((*RETRY_PAUSES_S, None)):
        try:
            _transfer(address, part, progress)
            return
        except (urllib.error.HTTPError, WebPageError):
            raise
        except (OSError, http.client.HTTPException) as error:
            never_reached = attempt == 0 and isinstance(error, urllib.error.URLError)
            if pause_s is None or never_reached:
                raise
            time.sleep(pause_s)


def hub_address(source: str) -> str:
    """The http address of `hf:OWNER/REPO/FILE` or `hf:spaces/OWNER/REPO/FILE`.

    Raises:
        InputError: another form.
    """
    from huggingface_hub import hf_hub_url

    path = source.removeprefix("hf:")
    kind = "space" if path.startswith("spaces/") else None
    parts = path.removeprefix("spaces/").split("/", 2)
    if len(parts) < 3 or not all(parts):
        raise InputError("source", f"{source!r}", "hf:OWNER/REPO/FILE")
    return hf_hub_url(f"{parts[0]}/{parts[1]}", parts[2], repo_type=kind)


def _transfer(address: str, part: Path, progress: Progress) -> None:
    """One request, from the end of what is there if the server still has the same file."""
    mark = _mark_of(part)
    there = part.stat().st_size if part.is_file() and mark.is_file() else 0
    headers = {"User-Agent": "rep-medsam"}
    if there:
        headers |= {"Range": f"bytes={there}-", "If-Range": mark.read_text(encoding="utf-8")}
    try:
        response = urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and there:
            return
        raise
    with response:
        if "text/html" in response.headers.get("Content-Type", ""):
            raise WebPageError("the server sent a web page (HTML)")
        if response.status != http.client.PARTIAL_CONTENT:
            there = 0
        _note_version(response.headers.get("ETag"), mark)
        _stream(response, part, there, progress)


def _stream(response: http.client.HTTPResponse, part: Path, there: int, progress: Progress) -> None:
    length = response.headers.get("Content-Length")
    total = there + int(length) if length else None
    with writing(part):
        part.touch()
        os.truncate(part, there)
    while chunk := response.read(CHUNK_BYTES):
        # Opened for each chunk: what the disk refuses is no fault of the transfer's, which would be tried again.
        with writing(part), part.open("r+b") as stream:
            stream.seek(there)
            stream.write(chunk)
        there += len(chunk)
        progress(there, total)
    if total is not None and there != total:
        raise TransferError(f"{there} of {total} bytes came")


def _mark_of(part: Path) -> Path:
    """File beside `part` with the server's tag of the version that it is a part of."""
    return part.with_name(part.name + ".etag")


def _note_version(tag: str | None, mark: Path) -> None:
    """Without a strong tag a later transfer begins anew: it could not tell whether the file is still the same."""
    with writing(mark):
        if tag and not tag.startswith("W/"):
            mark.write_text(tag, encoding="utf-8")
        else:
            mark.unlink(missing_ok=True)


def _discard(part: Path) -> None:
    for path in (part, _mark_of(part)):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _checked(card: WeightCard, path: Path) -> str:
    """The hash of the file at `path`, which is the card's model with the hash that it must have, if one is known."""
    digest = sha256_of(path)
    check_sha256(card, digest)
    fits = {fit.encoder for fit in fitting(read_checkpoint(path).state)}
    if card.encoder not in fits:
        found = f"weights of {', '.join(sorted(fits))}" if fits else "weights of no known model"
        raise InputError(path, found, f"weights of {card.encoder}")
    return digest


def _pin(card: WeightCard, digest: str, source: str) -> None:
    """Pins the hash of the file in its place, if it is the first."""
    if card.name not in read_lock():
        size, now = card.path.stat().st_size, datetime.now(UTC).isoformat(timespec="seconds")
        write_pin(card.name, Pin(digest, size, source, now))


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return f"HTTP {error.code} {error.reason}" if isinstance(error, urllib.error.HTTPError) else str(reason)
