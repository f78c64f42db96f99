"""Which models an event concerns, by what their policies watch."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from retrainer.core.events import AlarmChanged, Event, ObjectCreated
from retrainer.core.policy import Policy


class Routes:
    """The way from an event to its models, looked up rather than searched for; made anew whenever a policy changes."""

    def __init__(self, policies: Mapping[str, tuple[Policy, str]]) -> None:
        self.policies = policies
        self._prefixes: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._alarms: dict[str, list[str]] = defaultdict(list)
        for model, (policy, _) in policies.items():
            data = policy.data
            for prefix in {data.prefix, *([data.predictions.prefix] if data.predictions else [])}:
                self._prefixes[data.bucket, prefix].append(model)
            for alarm in dict.fromkeys(policy.triggers.alarms):
                self._alarms[alarm].append(model)

    def models(self, model: str | None, event: Event) -> Sequence[str]:
        """The model that the event names, if it has a policy; else those whose policies watch what it tells of."""
        if model is not None:
            return (model,) if model in self.policies else ()
        match event:
            case ObjectCreated(bucket=bucket, key=key):
                found = (m for p in _prefixes(key) for m in self._prefixes.get((bucket, p), ()))
                return tuple(dict.fromkeys(found))
            case AlarmChanged(alarm=alarm):
                return tuple(self._alarms.get(alarm, ()))
            case _:
                return ()


def _prefixes(key: str) -> Iterator[str]:
    """data/, data/a/ and data/a/b/ of data/a/b/c; a policy's prefix ends with a slash."""
    at = key.find("/")
    while at >= 0:
        yield key[: at + 1]
        at = key.find("/", at + 1)
