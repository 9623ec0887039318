"""The keys of a GPU's section, read from the table that the C library is compiled from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from ops.errors import InputError
from ops.lab.gpu.build import SOURCE

LINE = re.compile(r'READING\((\w+), (\w+), "([^"]*)", "([^"]*)"\)')
FLAG_WORDS = {"yes": 1, "no": 0, "enabled": 1, "disabled": 0, "1": 1, "0": 0}
ABSENT = "n/a"


@dataclass(frozen=True)
class Key:
    """One reading of a GPU.

    Attributes:
        name: As it stands in the file and on the command line.
        kind: `number`, `count`, `percent`, `mask` or `flag`.
        unit: NVML's unit, or nothing.
        meaning: For people.
    """

    name: str
    kind: str
    unit: str
    meaning: str

    def parse(self, text: str) -> int | None:
        """The value behind a word.

        Returns:
            The number; None for `n/a`, which NVML tells as not supported.

        Raises:
            InputError: The word is none for a reading of this kind.
        """
        word = text.strip().lower()
        if word == ABSENT:
            return None
        if self.kind == "flag":
            if word not in FLAG_WORDS:
                raise self._refusal(text, "yes or no")
            return FLAG_WORDS[word]
        try:
            value = int(word, 0)
        except ValueError:
            raise self._refusal(text, "a whole number") from None
        if self.kind != "number" and value < 0:
            raise self._refusal(text, "0 or more")
        if self.kind == "percent" and value > 100:
            raise self._refusal(text, "0 to 100")
        return value

    def render(self, value: int | None) -> str:
        """The word for a value, as it stands in the file."""
        if value is None:
            return ABSENT
        if self.kind == "flag":
            return "yes" if value else "no"
        return hex(value) if self.kind == "mask" else str(value)

    def _refusal(self, text: str, wanted: str) -> InputError:
        unit = f" {self.unit}" if self.unit else ""
        return InputError(
            f"{self.name}={text} is not {wanted}{unit}",
            cure=f"{self.name} is: {self.meaning}; or n/a for a GPU without it",
        )


@cache
def readings() -> dict[str, Key]:
    """Every reading, by name, in the order of the file."""
    found = (LINE.match(line) for line in (SOURCE / "readings.def").read_text().splitlines())
    return {match[1]: Key(*match.groups()) for match in found if match}
