"""One policy from a file, and all of them from a directory, again and again."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from retrainer.adapters.policy_files.mistakes import told
from retrainer.adapters.policy_files.strict_yaml import compose, plain
from retrainer.core.policy import Policy
from retrainer.core.record import digest, dump
from retrainer.ports import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What the daemon's settings fill in where a policy leaves it out."""

    bucket: str | None = None
    state_machine: str | None = None
    profile_state_machine: str | None = None


def load(path: Path, defaults: Defaults) -> Policy:
    """The policy in one file. Raises ConfigError with one line a mistake, in the order of the file."""
    root = compose(path)
    try:
        return Policy.model_validate(_filled(plain(path, root), defaults))
    except ValidationError as error:
        raise ConfigError(told(path, root, error)) from error
    except (ArithmeticError, OSError, TypeError, ValueError) as error:
        # A validator stumbled over a value nobody thought of: still the file's mistake, not the daemon's end.
        raise ConfigError(f"{path}:1:1: a value cannot be read: {error!s:.200}; write it more simply") from error


class PolicyFiles:
    """The policies of a directory, one *.yaml file a model. A file that breaks leaves its last good policy in force."""

    def __init__(self, directory: Path, defaults: Defaults) -> None:
        """Loads at once; what is wrong with files is told by `errors`. Raises ConfigError without the directory."""
        self._directory = directory
        self._defaults = defaults
        self._read: dict[Path, _Read] = {}
        self._current: dict[str, tuple[Policy, str]] = {}
        self._errors: dict[Path, str] = {}
        self.reload()

    def current(self) -> Mapping[str, tuple[Policy, str]]:
        """The policies in force by model, each with its hash; another mapping once one of them has changed."""
        return self._current

    def errors(self) -> Mapping[Path, str]:
        """What is wrong now, by file."""
        return dict(self._errors)

    def valid(self) -> Mapping[str, bool]:
        """Whether a file is as it should be, by its name, which can be shown."""
        return {_name(path): path not in self._errors for path in self._read}

    def reload(self) -> frozenset[str]:
        """Read what has changed; the models whose policy is new, another, or gone. Raises ConfigError as at first."""
        paths = _listed(self._directory)
        self._read = {path: self._again(path) for path in paths}
        self._errors = {path: read.error for path, read in self._read.items() if read.error}
        before, self._current = self._current, self._chosen(self._current)
        names = before.keys() | self._current.keys()
        return frozenset(n for n in names if _hash_of(before, n) != _hash_of(self._current, n))

    def _again(self, path: Path) -> "_Read":
        known = self._read.get(path)
        stamp = _stamp(path)
        if known and known.stamp == stamp:
            return known
        if path.name != _name(path):
            why = f"{path.parent}: the name of the file {_name(path)} cannot be shown; rename it"
            return _Read(stamp=stamp, policy=None, error=why)
        try:
            return _Read(stamp=stamp, policy=load(path, self._defaults))
        except ConfigError as error:
            return _Read(stamp=stamp, policy=known.policy if known else None, error=str(error))

    def _chosen(self, before: Mapping[str, tuple[Policy, str]]) -> dict[str, tuple[Policy, str]]:
        """One policy a model; of two files for one model neither is taken, and what was in force stays."""
        chosen: dict[str, tuple[Policy, str]] = {}
        of: dict[str, list[Path]] = {}
        for path, read in self._read.items():
            if read.policy:
                of.setdefault(read.policy.model, []).append(path)
        for model, paths in of.items():
            if len(paths) == 1:
                policy = self._read[paths[0]].policy
                assert policy
                chosen[model] = (policy, digest(dump(policy)))
                continue
            if model in before:
                chosen[model] = before[model]
            names = " and ".join(p.name for p in paths)
            for path in paths:
                self._errors[path] = f"{path}:1:1: model: {names} are both for {model}; give one of them another model"
        while circle := _circle(chosen):
            said = " after ".join(circle)
            for model in set(circle):
                why = f"guards.after: {said} would wait for one another for ever; leave one of them out"
                self._errors |= {path: f"{path}:1:1: {why}" for path in of[model]}
                chosen.pop(model)
            kept = {model: before[model] for model in set(circle) & before.keys()}
            if not _circle({**chosen, **kept}):
                chosen |= kept
        return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A file as it was last read: `policy` is the last good one, `error` what is wrong since."""

    stamp: tuple[int, ...]
    policy: Policy | None
    error: str = ""


def _listed(directory: Path) -> list[Path]:
    """The policy files. A directory that cannot be listed is a mistake: it must not look as if it were empty."""
    try:
        return sorted(p for p in directory.iterdir() if p.name.endswith(".yaml") and not p.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{directory} is not a directory; name the one that holds the policies") from error
    except OSError as error:
        raise ConfigError(f"{directory} cannot be listed: {error.strerror}; let the daemon read it") from error


def _name(path: Path) -> str:
    """The file's name as a log or a metric may show it: Linux allows any bytes in it."""
    is_plain = all(unicodedata.category(c)[0] != "C" for c in path.name)
    return path.name if is_plain else ascii(path.name)


def _stamp(path: Path) -> tuple[int, ...]:
    """Changes with the file; the inode too, as Kubernetes exchanges the files of a ConfigMap by a link."""
    try:
        seen = path.stat()
    except OSError:
        return ()
    return (seen.st_mtime_ns, seen.st_size, seen.st_ino)


def _hash_of(policies: Mapping[str, tuple[Policy, str]], model: str) -> str | None:
    return policies[model][1] if model in policies else None


def _circle(policies: Mapping[str, tuple[Policy, str]]) -> Sequence[str]:
    """Models that each wait for the next one, the first again at the end; empty where there is no such circle."""
    try:
        TopologicalSorter({model: policy.guards.after for model, (policy, _) in policies.items()}).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return ()


def _filled(value: dict[str, Any], defaults: Defaults) -> dict[str, Any]:
    windows = value.get("windows")
    for section, name, default in (
        (value.get("data"), "bucket", defaults.bucket),
        (value.get("action"), "state_machine", defaults.state_machine),
        (isinstance(windows, dict) and windows.get("scale_out"), "state_machine", defaults.profile_state_machine),
    ):
        if default is not None and isinstance(section, dict):
            section.setdefault(name, default)
    return value
