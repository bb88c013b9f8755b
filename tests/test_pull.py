"""Pulling weights from a local server that breaks off, changes and lies."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import URLError

import portalocker
import pytest
import torch
from checkpoints import filled
from click.testing import CliRunner

from cli import main
from zoo.errors import InputError
from zoo.registry import create_sam
from zoo.weights import cards, pull
from zoo.weights.cards import Pin, WeightCard, catalog, read_lock, weight_card, write_pin


@dataclass
class Site:
    """What the server serves, how it misbehaves, and what it was asked."""

    data: bytes
    tag: str = '"v1"'
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    status: int = 200
    content_type: str = "application/octet-stream"
    asked: list[str | None] = field(default_factory=list)
    address: str = ""


class Handler(BaseHTTPRequestHandler):
    """Serves `site.data` with ranges; the n-th answer breaks off after `site.cuts[n]` bytes."""

    def __init__(self, site: Site, *args: object) -> None:
        self.site = site
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        site, asked = self.site, self.headers.get("Range")
        site.asked.append(asked)
        start = 0
        if asked and site.ranges and self.headers.get("If-Range") == site.tag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        self.send_response(site.status if site.status != 200 else (206 if start else 200))
        body = site.data[start:]
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", site.content_type)
        self.send_header("ETag", site.tag)
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(body[: site.cuts.pop(0)] if site.cuts else body)

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("weights") / "rep_medsam.pth"
    torch.save(filled("rep_medsam"), path)
    return path.read_bytes()


@pytest.fixture
def site(weights_file: bytes) -> Iterator[Site]:
    site = Site(weights_file)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, site))
    site.address = f"http://127.0.0.1:{server.server_port}/rep_medsam.pth"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cards.FOLDER_VARIABLE, str(tmp_path / "ckpts"))
    monkeypatch.setattr(pull, "RETRY_PAUSES_S", (0.0, 0.0))
    return tmp_path / "ckpts"


@pytest.fixture
def card(site: Site) -> WeightCard:
    return WeightCard(**{**vars(weight_card("rep_medsam")), "url": site.address})


def left(folder: Path) -> set[str]:
    """Names in the folder, but for those of locks."""
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"} if folder.is_dir() else set()


def test_a_pulled_file_is_whole_pinned_and_loads(card: WeightCard, site: Site, folder: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = pull.pull(card, progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == site.data
    assert left(folder) == {"rep_medsam.pth", "lock.json"}
    pin = read_lock()["rep_medsam"]
    assert (pin.sha256, pin.size_bytes) == (hashlib.sha256(site.data).hexdigest(), len(site.data))
    assert seen[-1] == (len(site.data), len(site.data))
    sam = create_sam("repvit", "rep_medsam")
    assert sam.weights is not None
    assert sam.weights.sha256 == pin.sha256
    pull.pull(card)
    assert len(site.asked) == 1, "what is there is not fetched again"


def test_a_transfer_that_breaks_goes_on(card: WeightCard, site: Site) -> None:
    site.cuts = [5_000_000, 1_000]
    assert pull.pull(card).read_bytes() == site.data
    assert site.asked == [None, "bytes=5000000-", "bytes=5001000-"]


def test_the_next_call_goes_on_where_the_last_one_gave_up(card: WeightCard, site: Site, folder: Path) -> None:
    site.cuts = [100, 100, 100]
    with pytest.raises(InputError, match=r"no transfer \(300 of \d+ bytes came\).*by hand"):
        pull.pull(card)
    assert left(folder) == {".rep_medsam.pth.part", ".rep_medsam.pth.part.etag"}
    assert pull.pull(card).read_bytes() == site.data
    assert site.asked[-1] == "bytes=300-"


def test_a_server_that_is_away_for_a_moment_is_asked_again(
    card: WeightCard, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a transfer that broke; one that never began is told of at once."""
    site.cuts = [1000]
    asked: list[object] = []

    def urlopen(request: object, **how: object) -> object:
        asked.append(request)
        if len(asked) == 2:
            raise URLError("connection refused")
        return opened(request, **how)

    opened: Any = urllib.request.urlopen
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert pull.pull(card).read_bytes() == site.data
    assert len(asked) == 3
    assert site.asked[-1] == "bytes=1000-"


def test_a_file_that_changed_meanwhile_begins_anew(card: WeightCard, site: Site) -> None:
    site.cuts = [100, 100, 100]
    with pytest.raises(InputError):
        pull.pull(card)
    site.tag = '"v2"'
    assert pull.pull(card).read_bytes() == site.data


def test_a_server_without_ranges(card: WeightCard, site: Site) -> None:
    site.cuts, site.ranges = [5_000_000], False
    assert pull.pull(card).read_bytes() == site.data


def test_a_corrupted_transfer_is_refused(card: WeightCard, site: Site, folder: Path) -> None:
    good = site.data
    pull.pull(card).unlink()
    site.data = good[:1000] + bytes([good[1000] ^ 1]) + good[1001:]
    with pytest.raises(InputError, match=r"found sha256 .*pinned by the first download"):
        pull.pull(card)
    assert left(folder) == {"lock.json"}
    site.data = good
    pull.pull(card)


def test_the_catalogs_hash_counts_from_the_first_download(card: WeightCard, folder: Path) -> None:
    with pytest.raises(InputError, match=r"expected 0{64} \(the catalog\)"):
        pull.pull(WeightCard(**{**vars(card), "sha256": "0" * 64}))
    assert left(folder) == set()


@pytest.mark.parametrize(("change", "message"), [
    ({"content_type": "text/html; charset=utf-8"}, "web page"),
    ({"data": b"<!DOCTYPE html><html>please log in</html>"}, "web page"),
    ({"data": b""}, "empty file"),
    ({"status": 404}, "HTTP 404"),
    ({"data": b"\x80\x04nonsense"}, "found"),
])  # fmt: skip
def test_what_is_no_checkpoint_is_refused(
    card: WeightCard, site: Site, folder: Path, change: dict[str, object], message: str
) -> None:
    vars(site).update(change)
    with pytest.raises(InputError, match=message):
        pull.pull(card)
    assert left(folder) == set()


def test_weights_of_another_model_are_refused(site: Site, folder: Path) -> None:
    with pytest.raises(InputError, match=r"found weights of repvit, repvit_m1_0; expected weights of tinyvit"):
        pull.pull(WeightCard(**{**vars(weight_card("lite_medsam")), "sha256": None}), site.address)
    assert left(folder) == set()


def test_without_a_network_the_way_by_hand_is_told(card: WeightCard) -> None:
    with pytest.raises(InputError, match=r"no transfer .*download rep_medsam\.pth from https://github\.com/muxin-wei"):
        pull.pull(card, "http://127.0.0.1:9/rep_medsam.pth")
    with pytest.raises(InputError, match=r"no address that a program may download from; .*drive\.google\.com"):
        pull.pull(weight_card("lite_medsam"))


def test_a_downloaded_file_is_taken(card: WeightCard, site: Site, tmp_path: Path) -> None:
    (tmp_path / "mine.pth").write_bytes(site.data)
    assert pull.pull(card, str(tmp_path / "mine.pth")).read_bytes() == site.data
    with pytest.raises(InputError, match=r"no transfer .*nowhere\.pth"):
        pull.pull(WeightCard(**{**vars(card), "file": "other.pth"}), "nowhere.pth")


def test_what_a_broken_copy_left_is_not_gone_on_from(
    card: WeightCard, site: Site, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes are not the server's, whose tag an earlier transfer left behind."""
    site.cuts = [100, 100, 100]
    with pytest.raises(InputError):
        pull.pull(card)
    (tmp_path / "other.pth").write_bytes(b"other" * 1000)

    def interrupted(source: BinaryIO, target: BinaryIO) -> None:
        target.write(source.read(1000))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pull.pull(card, str(tmp_path / "other.pth"))
    assert left(folder) == {".rep_medsam.pth.part"}
    assert pull.pull(card).read_bytes() == site.data
    assert site.asked[-1] is None


def test_a_file_that_is_not_there_leaves_what_came_before(card: WeightCard, site: Site) -> None:
    site.cuts = [100, 100, 100]
    for source in (None, "nowhere.pth"):
        with pytest.raises(InputError):
            pull.pull(card, source)
    assert pull.pull(card).read_bytes() == site.data
    assert site.asked[-1] == "bytes=300-"


@pytest.mark.parametrize(("source", "address"), [
    ("hf:owner/repo/folder/w.pt", "https://huggingface.co/owner/repo/resolve/main/folder/w.pt"),
    ("hf:spaces/owner/repo/w.pt", "https://huggingface.co/spaces/owner/repo/resolve/main/w.pt"),
])  # fmt: skip
def test_hub_addresses(source: str, address: str) -> None:
    assert pull.hub_address(source) == address


def test_hub_ids_need_a_file() -> None:
    with pytest.raises(InputError, match="hf:OWNER/REPO/FILE"):
        pull.hub_address("hf:owner/repo")


def test_commands(site: Site, folder: Path) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["weights", *arguments], terminal_width=200)
        return result.exit_code, result.output

    assert run("verify", "rep_medsam")[0] == 1
    code, output = run("pull", "rep_medsam", "--from", site.address)
    assert code == 0, output
    assert "bench --encoder repvit --weights rep_medsam" in output
    assert "rep_medsam: as pinned" in run("verify")[1]
    (folder / "rep_medsam.pth").write_bytes(b"damaged")
    code, output = run("verify")
    assert code == 1
    assert "pinned by the first download" in output
    assert "Not for commercial use: edge_sam, edge_sam_3x" in " ".join(run("list")[1].split())
    assert "did you mean mobile_sam" in run("pull", "mobile_sma")[1]


def test_a_card_that_was_not_downloaded() -> None:
    with pytest.raises(InputError, match=r"weights 'mobile_sam': `repmedsam weights pull mobile_sam`"):
        create_sam("mobile_sam", "mobile_sam")


def test_a_card_and_a_file_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mobile_sam").touch()
    with pytest.raises(InputError, match=r"a weight card and a file of that name; expected \./mobile_sam"):
        create_sam("mobile_sam", "mobile_sam")


def test_a_damaged_lock_file(folder: Path) -> None:
    folder.mkdir()
    (folder / "lock.json").write_text("{")
    with pytest.raises(InputError, match="no lock file"):
        read_lock()


def test_a_file_in_the_place_of_the_folder(folder: Path) -> None:
    folder.touch()
    with pytest.raises(
        InputError, match=r"lock\.json: found what cannot be read .*; expected REPMEDSAM_CKPTS that names"
    ):
        create_sam("light_repvit_m0_9")


def test_a_good_file_outlives_a_pin_that_cannot_be_written(
    card: WeightCard, site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise InputError(folder / "lock.json", "no room or no right to write", "a folder with space left")

    monkeypatch.setattr(pull, "write_pin", full)
    with pytest.raises(InputError, match=r"lock.json: found no room"):
        pull.pull(card)
    assert card.path.read_bytes() == site.data
    monkeypatch.setattr(pull, "write_pin", write_pin)
    asked = len(site.asked)
    assert pull.pull(card) == card.path
    assert len(site.asked) == asked
    assert card.name in read_lock()


def test_a_full_disk_is_no_broken_transfer(card: WeightCard, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server would be asked again and again."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "truncate", full)
    with pytest.raises(InputError, match=r"rep_medsam.*part: found no room .*No space left"):
        pull.pull(card)
    assert len(site.asked) == 1


def test_the_catalog_is_sound() -> None:
    from zoo.registry import encoder_spec

    entries = json.loads((Path(cards.__file__).parents[2] / "ckpts" / "catalog.json").read_text())
    assert list(catalog()) == [entry["name"] for entry in entries], "no name twice"
    for entry in catalog().values():
        spec = encoder_spec(entry.encoder)
        assert entry.licence == ("Apache-2.0" if entry.ships else spec.licence), "a spec's is that of published weights"
        assert Path(entry.file).name == entry.file
        assert entry.sha256 is None or len(entry.sha256) == 64


def test_what_is_asked_for_from_a_source_takes_the_place_of_what_is_there(
    card: WeightCard, site: Site, folder: Path, tmp_path: Path
) -> None:
    card.path.parent.mkdir(parents=True, exist_ok=True)
    card.path.write_bytes(b"something else")
    (tmp_path / "mine.pth").write_bytes(site.data)
    assert pull.pull(card, str(tmp_path / "mine.pth")).read_bytes() == site.data
    pin = read_lock()[card.name]
    assert (pin.sha256, pin.source) == (hashlib.sha256(site.data).hexdigest(), str(tmp_path / "mine.pth"))


def test_pins_of_processes_that_pull_at_once_are_all_kept(folder: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: write_pin(f"card{number}", Pin("0" * 64, 1, "here", "now")), range(40)))
    assert len(read_lock()) == 40


def test_of_two_that_pull_at_once_one_waits_for_the_other(card: WeightCard, site: Site, folder: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(pull.pull, [card, card]))
    assert paths == [card.path] * 2
    assert card.path.read_bytes() == site.data
    assert site.asked == [None], "what has come meanwhile is taken"
    assert left(folder) == {"rep_medsam.pth", "lock.json"}


def test_who_waits_for_another_says_so(card: WeightCard, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.mkdir(exist_ok=True)
    with ThreadPoolExecutor(1) as pool:
        with portalocker.Lock(folder / f".{card.file}.part.lock", flags=portalocker.LOCK_EX):
            waiting = pool.submit(pull.pull, card)
            deadline = time.monotonic() + 30
            while not caplog.messages and time.monotonic() < deadline:
                time.sleep(0.01)
            assert not waiting.done()
        assert waiting.result() == card.path
    assert "another process is at it; waiting for that" in caplog.text
