"""What messages show of values that somebody else wrote: short, on one line, and harmless to a terminal."""

from __future__ import annotations

MOST = 60  # characters of one value
MOST_MESSAGE = 4000  # of a whole message
CUT = "..."


def quoted(value: object, most: int = MOST) -> str:
    """A value as messages quote it, cut short. A text of a million letters, a number of thousands of digits and an object
    that refuses to be shown all give at most `most` characters, and rows of numbers one line."""
    if isinstance(value, str):
        value = value[: most + 1]  # repr of the rest would be made only to be cut off
    try:
        text = repr(value)
    except Exception as error:  # whatever a foreign __repr__ raises; ValueError for numbers of too many digits
        text = f"<{type(value).__name__}: {type(error).__name__}>"
    return shortened(" ".join(text.split()) if "\n" in text else text, most)


def shortened(text: str, most: int = MOST) -> str:
    """A text of at most `most` characters, its end cut off."""
    return text if len(text) <= most else text[: most - len(CUT)] + CUT


def printable(text: str, most: int = MOST_MESSAGE) -> str:
    """A message as a terminal may show it: control characters other than line ends and tabs, and halves of letters that
    cannot be encoded, as escapes; at most `most` characters, the middle cut out."""
    if len(text) > most:
        half = (most - len(CUT)) // 2
        text = text[:half] + CUT + text[-half:]
    return "".join(letter if _harmless(letter) else repr(letter)[1:-1] for letter in text)


def _harmless(letter: str) -> bool:
    return letter.isprintable() or letter in "\n\t"


def reason(error: BaseException) -> str:
    """What an error says, as part of a message: of one of the system its own words, without number and path."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return shortened(" ".join(words.split()), 4 * MOST) or type(error).__name__
