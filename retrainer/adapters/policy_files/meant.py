"""What somebody probably meant who wrote a value that a policy does not take; empty where nothing comes to mind."""

import re
from collections.abc import Sequence
from datetime import date
from difflib import get_close_matches
from typing import Final
from zoneinfo import available_timezones

_UNITS: Final = {"s": "s", "sec": "s", "m": "m", "min": "m", "h": "h", "hr": "h", "d": "d", "w": "w", "wk": "w"}
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_CURRENCIES: Final = {"€": "EUR", "$": "USD", "£": "GBP", "¥": "JPY", "EURO": "EUR", "DOLLAR": "USD"}
_NICKNAMES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "every hour": "0 * * * *",
    "every day": "0 2 * * *",
    "every night": "0 2 * * *",
    "every week": "0 2 * * 1",
    "every month": "0 2 1 * *",
    "daily": "0 2 * * *",
    "nightly": "0 2 * * *",
    "weekly": "0 2 * * 1",
    "rate(1 hour)": "0 * * * *",
    "rate(1 day)": "0 2 * * *",
}
_SAME: Final = {
    "chi2": "chisquare",
    "tv": "TVD",
    "totalvariation": "TVD",
    "js": "jensenshannon",
    "emd": "wasserstein",
    "kolmogorovsmirnov": "ks",
    "nulls": "missing",
    "vector": "embedding",
    "float": "numerical",
    "string": "categorical",
    "auc": "roc_auc",
    "fdr": "bh",
    "benjaminihochberg": "bh",
    "benjaminiyekutieli": "by",
    "bonferroni": "holm",
    "sagemaker": "capture",
}
"""Other names, without signs between their letters, of what a policy calls otherwise."""
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def duration(value: object) -> str:
    """`6 h`, `90 minutes`, `1h30m`, `1.5h` and `PT6H` as a policy writes them."""
    text = str(value).strip().lower()
    if value is None:
        return "6h, or 0s for none at all"
    if text.isascii() and text.isdigit():
        return f"{value}s, {value}m, {value}h or {value}d"
    if re.fullmatch(r"p(?:\d+d)?(?:t(?:\d+[hms])+)?", text):
        text = text.removeprefix("p").replace("t", "")
    total = 0.0
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text)
    if not parts or re.sub(r"(\d+(?:\.\d+)?)\s*([a-z]+)|\s|and|,", "", text):
        return ""
    for count, name in parts:
        if name.startswith("month"):
            return f"{int(float(count)) * 30}d"
        unit = _UNITS.get(name) or _UNITS.get(name[:1] if name.rstrip("s") in _WHOLE else "")
        if unit is None:
            return ""
        total += float(count) * _SECONDS[unit]
    return _written(total)


_WHOLE: Final = ("second", "sec", "minute", "min", "hour", "hr", "day", "week", "wk")


def _written(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= size and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return ""


def clock(value: object) -> str:
    """`8:00`, `22`, `10pm` and `24:00` as a policy writes times of day."""
    found = re.fullmatch(r"(\d{1,2})(?:[:.](\d\d))?\s*(am|pm|h)?", str(value).strip().lower())
    if not found or isinstance(value, bool):
        return ""
    hour = int(found[1])
    if found[3] in ("am", "pm"):
        hour = hour % 12 + (12 if found[3] == "pm" else 0)
    minute = int(found[2] or 0)
    return f"'{hour % 24:02}:{minute:02}'" if hour <= 24 and minute < 60 else ""


def day(value: object) -> str:
    """`24.12.2026` and `12/24/2026` as ISO 8601 writes days, where only one can be meant."""
    found = re.fullmatch(r"(\d{1,2})([./-])(\d{1,2})\2(\d{4})", str(value).strip())
    if not found:
        return ""
    first, second, year = int(found[1]), int(found[3]), int(found[4])
    tried = [(second, first), (first, second)] if found[2] != "." else [(second, first)]
    days = {f"{year:04}-{m:02}-{d:02}" for m, d in tried if _exists(year, m, d)}
    return days.pop() if len(days) == 1 else ""


def _exists(year: int, month: int, in_month: int) -> bool:
    try:
        date(year, month, in_month)
    except ValueError:
        return False
    return True


def cron(value: object) -> str:
    """What people write in place of five fields, as five fields."""
    text = " ".join(str(value).lower().split())
    if text in _NICKNAMES:
        return _NICKNAMES[text]
    if found := re.fullmatch(r"(?:daily at )?(\d{1,2}):(\d\d)", text):
        return f"{int(found[2])} {int(found[1])} * * *"
    inner = text.removeprefix("cron(").removesuffix(")").replace("?", "*").split()
    if len(inner) == 6:
        inner = inner[:5] if text.startswith("cron(") else inner[1:]
    plain = len(inner) == 5 and all(re.fullmatch(r"[0-9*/,a-z#-]+", field) for field in inner)
    return " ".join(inner) if plain and inner != text.split() else ""


def time_zone(value: object) -> str:
    """The IANA name of a city."""
    name = str(value).strip().replace(" ", "_").lower()
    found = sorted(z for z in available_timezones() if z.lower() == name or z.lower().endswith(f"/{name}"))
    return found[0] if name and found else ""


def number(value: object, *, is_percent: bool) -> str:
    """`50%`, `10,000`, `10k`, `0,5` and `3.50 USD` as numbers."""
    text = str(value).strip()
    if found := re.fullmatch(r"%?\s*(\d+(?:\.\d+)?)\s*%?", text):
        return f"{float(found[1]):g}" if is_percent else f"{float(found[1]) / 100:g}"
    if re.fullmatch(r"\d{1,3}(,\d{3})+", text):
        return text.replace(",", "")
    if re.fullmatch(r"\d+,\d+", text):
        return text.replace(",", ".")
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKmM])", text):
        return f"{int(float(found[1]) * (1_000 if found[2] in 'kK' else 1_000_000))}"
    if found := re.fullmatch(r"[€$£]?\s*(\d+(?:\.\d+)?)\s*([€$£]|[A-Za-z]{3})?", text):
        return f"{float(found[1]):g}; the currency goes into costs.currency"
    return ""


def matching(value: object, pattern: str) -> str:
    """A value that the pattern takes and that looks much like the one given."""
    text = str(value).strip()
    if text.startswith("$") and len(text) > 1:
        return ""  # a variable that nobody will replace
    lower = text.lower()
    tried = (
        f"{text}/",
        re.sub(r"^s3://[^/]+/", "", text),
        re.sub(r"^s3://[^/]+/", "", f"{text}/"),
        re.sub(r"^s3://([^/]+)/?$", r"\1", text),
        re.sub(r"^/", "", text),
        f"ml.{text}",
        _CURRENCIES.get(text.upper(), text.upper()),
        ":".join(text.rsplit(".", 1)),
        re.sub(r"[^a-z0-9_]+", "_", lower.replace("@", "_at_")),
        re.sub(r"[^a-z0-9-]+", "-", lower).strip("-"),
    )
    return next((each for each in tried if each and re.fullmatch(pattern, each)), "")


def one_of(value: object, known: Sequence[str]) -> str:
    """The one of the words that is nearest, or means the same."""
    text = str(value).lower()
    small = {word.lower(): word for word in known}
    if (same := _SAME.get(re.sub(r"[^a-z0-9]", "", text), "")) in known:
        return same
    if close := get_close_matches(text, small, n=1, cutoff=0.6):
        return small[close[0]]
    starts = [word for word in known if len(word) >= 3 and (text.startswith(word) or word.startswith(text))]
    return starts[0] if len(starts) == 1 else ""


def days(value: object) -> str:
    """`mon-fri`, `weekend` and the like as a list."""
    text = str(value).lower()
    named = {"weekend": DAYS[5:], "weekends": DAYS[5:], "weekdays": DAYS[:5], "weekday": DAYS[:5]}
    chosen = named.get(text, ())
    found = re.fullmatch(r"([a-z]{3})[a-z]*\s*(?:-|to)\s*([a-z]{3})[a-z]*", text)
    if found and found[1] in DAYS and found[2] in DAYS and DAYS.index(found[1]) < DAYS.index(found[2]):
        chosen = DAYS[DAYS.index(found[1]) : DAYS.index(found[2]) + 1]
    return f"[{', '.join(chosen)}]" if chosen else ""
