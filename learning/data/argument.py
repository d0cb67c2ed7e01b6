"""The part of a data source's spec behind ``=``: a path and its options.

``csv=walk.csv,window=100,hop=25`` is the path ``walk.csv`` with the options ``window`` and
``hop``. Only trailing pieces that look like ``option=value`` are options, so that a path may
hold a comma.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from learning.data.dataset import DataError

#: The largest file, or array unpacked from one, that a source reads.
MAX_SOURCE_BYTES = 4 * 1024**3

_OPTION = re.compile(r"([a-z_]+)=(.*)")


@dataclass(frozen=True, slots=True)
class Argument:
    """A path and its options, as text.

    Attributes:
        path: A file, a directory or a pattern such as ``data/s1*.npz``.
        options: Option name -> value.
    """

    path: str
    options: dict[str, str]

    @classmethod
    def parse(cls, text: str, known: tuple[str, ...]) -> "Argument":
        """Return the path and the options in ``text``.

        Raises:
            DataError: The path is empty, or an option is not one of ``known``.
        """
        pieces = text.split(",")
        options: dict[str, str] = {}
        while len(pieces) > 1 and (match := _OPTION.fullmatch(pieces[-1].strip())):
            options[match[1]] = match[2]
            pieces.pop()
        path = ",".join(pieces)
        unknown = sorted(set(options) - set(known))
        if unknown:
            message = f"{unknown[0]}: unknown option; known are {', '.join(known) or 'none'}"
            raise DataError(message)
        if not path:
            message = "a file or directory is required after '='"
            raise DataError(message)
        return cls(path, options)

    def files(self, suffix: str) -> list[Path]:
        """Return the files meant, sorted: the file, the directory's, or the pattern's.

        Args:
            suffix: Ending of the files taken from a directory, with its dot.

        Raises:
            DataError: There is none, or one is larger than ``MAX_SOURCE_BYTES``.
        """
        path = Path(self.path).expanduser()
        if path.is_dir():
            found = sorted(path.glob(f"*{suffix}"))
        elif path.is_file():
            found = [path]
        else:
            found = sorted(item for item in path.parent.glob(path.name) if item.is_file())
        if not found:
            message = f"{path}: no such file, nor {suffix} files in such a directory"
            raise DataError(message)
        for item in found:
            check_bytes(str(item), item.stat().st_size)
        return found

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """Return an option as an integer from ``low`` to ``high``, or the default."""
        return int(self.number(name, default, low, high, whole=True))

    def number(
        self, name: str, default: float, low: float, high: float, *, whole: bool = False
    ) -> float:
        """Return an option as a number from ``low`` to ``high``, or the default.

        Raises:
            DataError: It is no number or out of range.
        """
        text = self.options.get(name)
        if text is None:
            return default
        kind = "a whole number" if whole else "a number"
        try:
            value = int(text) if whole else float(text)
        except ValueError as error:
            message = f"{name}: {text!r} is not {kind}"
            raise DataError(message) from error
        if not low <= value <= high:
            message = f"{name}: {text}, it must be {kind} from {low} to {high}"
            raise DataError(message)
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        """Return an option that is ``yes`` or ``no``, or the default.

        Raises:
            DataError: It is neither.
        """
        text = self.options.get(name, "yes" if default else "no")
        if text not in {"yes", "no"}:
            message = f"{name}: {text!r}, it must be yes or no"
            raise DataError(message)
        return text == "yes"


def check_bytes(what: str, size: int) -> None:
    """Refuse ``size`` bytes when they are more than a source may hold.

    Raises:
        DataError: They are.
    """
    if size > MAX_SOURCE_BYTES:
        message = f"{what}: {size} bytes, at most {MAX_SOURCE_BYTES} are read"
        raise DataError(message)
