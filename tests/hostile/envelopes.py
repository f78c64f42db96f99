"""Messages that were valid until somebody changed them: any node of an envelope replaced, removed, moved or doubled."""

import json
from collections.abc import Iterable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from retrainer.adapters.eventbridge import Allowed, EnvelopeParser

SAMPLES = {p.stem: p.read_text() for p in sorted((Path(__file__).parents[1] / "adapters" / "events").glob("*.json"))}
ALLOWED = Allowed(
    accounts=frozenset({"111122223333"}),
    buckets=frozenset({"artifacts"}),
    state_machines=frozenset({"arn:aws:states:eu-central-1:111122223333:stateMachine:retraining"}),
    regions=frozenset({"eu-central-1"}),
)
PARSER = EnvelopeParser(ALLOWED)

ABSENT = object()
HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 2**63, 10**4000, 1e308, float("nan"), float("inf"), "", " ", "\0", "a\0b"),
    *("\ud800", "\u202e", "\u2028", "\x1b[2J", "\ufeff", "..", "../../etc/passwd", "a/../b", "%2e%2e/", "%00", "%ff"),
    *(
        "A" * 10_240,
        "ü" * 600,
        "null",
        "{}",
        "[]",
        "true",
        "-1",
        "9" * 5000,
        "NaN",
        "${jndi:ldap://x}",
        "'; --",
        "<a/>",
    ),
    *("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-02-30T00:00:00Z", "2026-01-31T24:00:00Z"),
    *(
        "arn:aws:states:eu-central-1:999999999999:execution:retraining:x-g1-00000000",
        "https://evil.example/",
        "s3://x/y",
    ),
    *([], {}, [None], {"": ""}, [[[[[[]]]]]], {"a": {"b": {"c": {}}}}, ["x"] * 2000, ABSENT),
)

Path_ = tuple[str | int, ...]


class Twice(dict[str, Any]):
    """An object whose first key stands there twice, with two values."""

    def items(self) -> Any:
        return [*super().items(), (next(iter(self)), "again")]


def paths(value: Any, at: Path_ = ()) -> Iterator[Path_]:
    """Every node's place, the whole message's first."""
    yield at
    inner: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for key, item in inner:
        yield from paths(item, (*at, key))


def found(value: Any, path: Path_) -> Any:
    """The node at a place."""
    for part in path:
        value = value[part]
    return value


def with_(value: Any, path: Path_, new: Any) -> Any:
    """The message with another node at that place."""
    if not path:
        return None if new is ABSENT else new
    inner = found(value, path[:-1])
    if new is ABSENT:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return value


def every_single_change() -> Iterator[tuple[str, str]]:
    """Each sample with each hostile value at each place, and the changes of form: (what it is, body)."""
    for name, text in SAMPLES.items():
        for path in list(paths(json.loads(text))):
            node = found(json.loads(text), path)
            forms = [
                [node],
                {"x": node},
                json.dumps(node),
                [node] * 3,
                *([Twice(node)] if node and isinstance(node, dict) else []),
            ]
            for new in (*HOSTILE, *forms):
                said = (
                    f"{name} {'.'.join(map(str, path))} -> {new!r:.40}" if new is not ABSENT else f"{name} {path} gone"
                )
                yield said, json.dumps(with_(json.loads(text), path, new))


_TEXTS = st.text(st.characters(codec=None), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def changed(draw: st.DrawFn) -> str:
    """A sample with up to four changes: a hostile value, any JSON, a node of another sample, or something removed."""
    value = json.loads(draw(st.sampled_from(sorted(SAMPLES.values()))))
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(list(paths(value))))
        donor = json.loads(draw(st.sampled_from(sorted(SAMPLES.values()))))
        other = found(donor, draw(st.sampled_from(list(paths(donor)))))
        new = draw(st.sampled_from(HOSTILE) | JSON | st.just(other))
        value = with_(value, path, new if new is ABSENT else deepcopy(new))
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


@st.composite
def torn(draw: st.DrawFn) -> str:
    """A sample as text, with a piece cut out, doubled or put in: no longer JSON, mostly."""
    text = draw(st.sampled_from(sorted(SAMPLES.values())))
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 40)))
    put = draw(
        _TEXTS
        | st.sampled_from(['"', "{", "}", "[", "]", ",", ":", "\\", "\\u", "\\ud800", "1e", "-", text[start:end] * 2])
    )
    return text[:start] + put + text[end:]
