"""Whether two questions may ask for the same: what is cheap to tell apart is told here.

Similarity of vectors does not see it: "enable 2FA" and "disable 2FA" are closer than a paraphrase.
These guards only ever say no; what passes them is still put to the model.
"""

import re
from collections import Counter

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*", re.UNICODE)
_TOKEN = re.compile(r"\S+")
_POSSESSIVE = re.compile("['\u2019]s$")
_EDGES = ".,;:!?()[]{}\"'\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb\u2026"


def _each(words: str) -> frozenset[str]:
    return frozenset(words.split())


_NEGATIONS = _each(
    "no not never none nobody nothing nowhere neither nor without cannot except unless hardly lack "
    "nicht nie niemals kein keine keinen keiner keines ohne"
)
_NUMBERS = _each(
    "zero one two three four five six seven eight nine ten eleven twelve dozen twenty thirty forty "
    "fifty sixty seventy eighty ninety hundred thousand million billion half quarter double twice "
    "once triple first second third fourth fifth last next previous"
)
# Either side of a pair; a question that has one of them is not one that has the other.
_OPPOSITES = (
    "enable/disable enabled/disabled enabling/disabling activate/deactivate on/off open/close "
    "start/stop begin/end add/remove add/delete create/delete create/drop install/uninstall "
    "allow/deny allow/block permit/forbid accept/reject accept/refuse grant/revoke lock/unlock "
    "mount/unmount attach/detach connect/disconnect subscribe/unsubscribe increase/decrease "
    "raise/lower up/down upgrade/downgrade upload/download import/export encrypt/decrypt "
    "encode/decode include/exclude show/hide before/after minimum/maximum min/max more/less "
    "most/least more/fewer higher/lower above/below over/under left/right top/bottom in/out "
    "from/to buy/sell send/receive read/write push/pull with/without public/private "
    "internal/external inside/outside true/false yes/no good/bad safe/unsafe legal/illegal "
    "possible/impossible valid/invalid old/new oldest/newest first/last earliest/latest "
    "best/worst cheapest/dearest win/lose pass/fail always/never all/none backup/restore "
    "commit/rollback ascending/descending male/female mother/father won/lost won/win"
)
_ENDING = re.compile(r"(?<=\w{2})(?:ing|ed|es|e|s|d)$")


def _stem(word: str) -> str:
    """Return a word without its ending: closed, closes and closing are one; some more are too."""
    return _ENDING.sub("", word)


_PAIRS = tuple(tuple(map(_stem, pair.split("/"))) for pair in _OPPOSITES.split())
_COMMON_STARTS = _each(
    "a an the i we you he she it they what which who whom whose when where why how is are was were "
    "do does did can could should would will shall may might must have has had please tell give "
    "explain describe list show name write make find help hi hello hey in on at for to of with if "
    "and or but my our your this that these those there any some let need want"
)


def tell_apart(one: str, other: str) -> str:
    """Return what tells two questions apart, or "" where these guards see no difference.

    Returns:
        `negation`, `opposite`, `number`, `name`, or "".
    """
    words, others = _words(one), _words(other)
    if _negations(words) != _negations(others):
        return "negation"
    if _are_opposite({_stem(word) for word in words}, {_stem(word) for word in others}):
        return "opposite"
    if _numbers(one, words) != _numbers(other, others):
        return "number"
    if _names(one) != _names(other):
        return "name"
    return ""


def _words(text: str) -> list[str]:
    return [word.lower().replace("\u2019", "'") for word in _WORD.findall(text)]


def _negations(words: list[str]) -> int:
    return sum(word in _NEGATIONS or word.endswith("n't") for word in words)


def _are_opposite(words: set[str], others: set[str]) -> bool:
    """Return whether one has a side of a pair that the other lacks, and the other the other's."""
    mine, theirs = words - others, others - words
    return any(
        (left in mine and right in theirs) or (right in mine and left in theirs)
        for left, right in _PAIRS
    ) or any(_negates(a, b) or _negates(b, a) for a in mine for b in theirs)


def _negates(word: str, root: str) -> bool:
    return len(root) > 2 and word in {f"{p}{root}" for p in ("un", "in", "im", "dis", "non", "de")}


def _numbers(text: str, words: list[str]) -> Counter[str]:
    found = Counter(re.findall(r"\d+(?:[.,:]\d+)*", text))
    found.update(word for word in words if word in _NUMBERS)
    return found


def _names(text: str) -> Counter[str]:
    """Return what looks like a name: capitals, or signs within a word; a start only if unusual."""
    names: Counter[str] = Counter()
    start = True
    for token in _TOKEN.findall(text):
        word = _POSSESSIVE.sub("", token.strip(_EDGES))
        if word and (
            re.search(r"\w[^\w\s'\u2019]+\w|_|[/\\@#$%&*+=<>]", word)
            or any(c.isupper() for c in word[1:])
            or (word[0].isupper() and not (start and word.lower() in _COMMON_STARTS))
        ):
            names[word.lower()] += word.lower() not in {"i", "i'm", "i'd", "i've", "i'll"}
        start = token[-1] in ".!?:"
    return +names
