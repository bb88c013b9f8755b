"""Weight cards: what is published, where users get it, under which licence, and the hash it was pinned to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import portalocker

from zoo.errors import InputError, unknown_name
from zoo.files import whole_file, writing

#: Folder that holds the checkpoints, instead of `ckpts/` beside the catalog.
FOLDER_VARIABLE = "REPMEDSAM_CKPTS"
LOCK_FILE = "lock.json"
#: What segments where neither an encoder nor a candidate is named: its weights ship.
DEFAULT_ENCODER = "light_repvit_m0_9"
#: Weights that time as trained ones do.
RANDOM = "random:0"


@dataclass(frozen=True)
class WeightCard:
    """A published checkpoint.

    Attributes:
        name: by which `--weights` and `weights pull` take it.
        encoder: name in the registry of the model it loads into.
        title: the published model.
        url: http(s) address of the file, or `hf:OWNER/REPO/FILE` on the Hugging Face Hub; None where only a person can
            download it.
        page: where a person finds it.
        file: file name in the checkpoints' folder.
        licence: of the weights.
        sha256: where it is known; else the first download pins it.
        ships: whether the file comes with the toolkit, beside the catalog; an encoder's first that does is its default.
    """

    name: str
    encoder: str
    title: str
    url: str | None
    page: str
    file: str
    licence: str
    sha256: str | None
    ships: bool = False

    @property
    def path(self) -> Path:
        """Where the file is, or belongs."""
        return (catalog_folder() if self.ships else checkpoints_folder()) / self.file

    @property
    def by_hand(self) -> str:
        """What a person does where a download is not possible."""
        return f"download {self.file} from {self.page} by hand, and `repmedsam weights pull {self.name} --from FILE`"


@dataclass(frozen=True)
class Pin:
    """What the first download of a card was.

    Attributes:
        sha256: of the file.
        size_bytes: of the file.
        source: where it came from.
        time_utc: when, ISO 8601.
    """

    sha256: str
    size_bytes: int
    source: str
    time_utc: str


@cache
def catalog() -> dict[str, WeightCard]:
    """All cards by name, in the catalog's order."""
    cards = json.loads(files("ckpts").joinpath("catalog.json").read_text(encoding="utf-8"))
    return {card["name"]: WeightCard(**card) for card in cards}


def weight_card(name: str) -> WeightCard:
    """The card `name`.

    Raises:
        InputError: no such card; the message suggests the right one.
    """
    if name not in catalog():
        raise unknown_name("weight card", name, catalog())
    return catalog()[name]


def cards_of(encoder: str) -> list[WeightCard]:
    """Cards whose weights load into `encoder`."""
    return [card for card in catalog().values() if card.encoder == encoder]


def default_weights(encoder: str) -> str:
    """What an encoder gets where no weights are named: the card of those that ship for it, else `random:0`."""
    return next((card.name for card in cards_of(encoder) if card.ships), RANDOM)


def catalog_folder() -> Path:
    """`ckpts/`, with the catalog and what ships."""
    return Path(str(files("ckpts")))


def checkpoints_folder() -> Path:
    """Where downloaded checkpoints are kept: `$REPMEDSAM_CKPTS`, or beside the catalog."""
    return Path(os.environ.get(FOLDER_VARIABLE) or catalog_folder())


def read_lock() -> dict[str, Pin]:
    """Pins by card name; empty before the first download.

    Raises:
        InputError: the lock file is not what this module wrote, or cannot be read.
    """
    path = checkpoints_folder() / LOCK_FILE
    try:
        return {name: Pin(**pin) for name, pin in json.loads(path.read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(path, f"what cannot be read ({error})", f"{FOLDER_VARIABLE} that names a folder") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            path, f"no lock file ({error})", "JSON as `weights pull` writes it; restore or delete it"
        ) from error


def write_pin(name: str, pin: Pin) -> None:
    """Adds a pin to the lock file.

    Raises:
        InputError: it cannot be written.
    """
    path = checkpoints_folder() / LOCK_FILE
    with writing(path, (OSError, portalocker.LockException)):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another process may be pinning, too.
        with (
            portalocker.Lock(path.with_name(f".{path.name}.lock"), flags=portalocker.LOCK_EX),
            whole_file(path) as part,
        ):
            pins = read_lock() | {name: pin}
            told = {n: asdict(p) for n, p in sorted(pins.items())}
            part.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def expected_sha256(card: WeightCard) -> str | None:
    """The hash that a file of this card must have: the catalog's, else the pinned one, else None."""
    pin = read_lock().get(card.name)
    return card.sha256 or (pin.sha256 if pin else None)


def check_sha256(card: WeightCard, found: str) -> None:
    """Refuses a file that is not what the card says.

    Raises:
        InputError: another hash than the catalog's or the lock file's.
    """
    expected = expected_sha256(card)
    if expected not in (None, found):
        where = "the catalog" if card.sha256 else f"{LOCK_FILE}, pinned by the first download"
        renewed = "" if card.sha256 else f"; or take {card.name} out of {LOCK_FILE}, if its publisher has changed it"
        told = f"{expected} ({where}); delete a damaged file and pull it again{renewed}"
        raise InputError(card.path, f"sha256 {found}", told)


def locate(weights: str | Path) -> tuple[Path, WeightCard | None]:
    """The checkpoint's path, and its card where `weights` is a card's name.

    Raises:
        InputError: a card that was not downloaded, a name that is a card and a file at once, or no name.
    """
    if not str(weights):
        raise InputError("weights", "an empty name", "a checkpoint, a weight card or random:SEED")
    card = catalog().get(str(weights))
    if card is None:
        return Path(weights), None
    if Path(weights).is_file():
        raise InputError(str(weights), "a weight card and a file of that name", f"./{weights} if the file is meant")
    if not card.path.is_file():
        raise InputError(card.path, "no such file", f"the weights {card.name!r}: `repmedsam weights pull {card.name}`")
    return card.path, card


def non_commercial(cards: Iterable[WeightCard]) -> list[str]:
    """Names of the cards whose licence forbids commercial use."""
    return [card.name for card in cards if "non-commercial" in card.licence]
