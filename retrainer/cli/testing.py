"""`retrainer test`: a policy's own tests, as promtool's are for alert rules."""

import argparse
import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrainer.cli.arguments import Add, for_machines
from retrainer.cli.terminal import agreed, is_attended, say

if TYPE_CHECKING:
    from retrainer.cases import CaseResult
    from retrainer.cases.language import Cases
    from retrainer.core.policy import Policy

SUFFIX = ".cases.txt"


def add_to(add: Add) -> None:
    command = add(
        "test",
        _test,
        "run the policies' own tests: the timelines beside them in <policy>.cases.txt\n"
        "policies/README.md is the reference of their language.",
        "retrainer test policies/",
        "retrainer test policies/recommender.cases.txt",
        "retrainer test policies/ --update",
    )
    command.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="files or folders (RETRAINER_POLICIES)")
    command.add_argument(
        "--update", action="store_true", help="write what is decided now in place of what was expected, once agreed to"
    )
    command.add_argument("--yes", action="store_true", help="with --update: do not ask")
    for_machines(command)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tested:
    """One file of cases and what came of it."""

    path: Path
    text: str
    cases: "Cases"
    policy: "Policy"
    results: "Sequence[CaseResult]"


def _test(args: argparse.Namespace) -> int:
    from retrainer.ports import ConfigError
    from retrainer.settings import Reach, read

    tested: list[_Tested] = []
    mistakes: list[str] = []
    for path in _files(args.paths or [read(Reach).policies]):
        try:
            tested.append(_run(path))
        except ConfigError as error:
            mistakes += str(error).splitlines()
    if args.update and not _update(tested, unasked=args.yes):
        return 1
    if args.update:
        tested = [_run(t.path) for t in tested]
    (_tell_machines if args.json else _tell)(tested, mistakes)
    if mistakes or any(r.mistake for t in tested for r in t.results):
        return 2
    return 0 if all(r.is_met for t in tested for r in t.results) else 1


def _files(paths: Sequence[Path]) -> list[Path]:
    """The files of cases that are meant. Raises ConfigError where there is none."""
    from retrainer.ports import ConfigError

    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(path.glob(f"*{SUFFIX}"))
            if not inside:
                raise ConfigError(
                    f"{path} holds no *{SUFFIX} file; write one beside a policy, as policies/README.md says"
                )
            found += inside
        else:
            found.append(path.with_suffix("").with_name(path.stem + SUFFIX) if path.suffix == ".yaml" else path)
    return list(dict.fromkeys(found))


def _run(path: Path) -> _Tested:
    """Reads a file of cases and the policy beside it, and runs them. Raises ConfigError."""
    from retrainer import cases, wiring
    from retrainer.adapters import schedules
    from retrainer.ports import ConfigError

    if not path.name.endswith(SUFFIX):
        raise ConfigError(f"{path}: it is no file of cases; name it <policy>{SUFFIX}, beside the policy")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{path}: it cannot be read: {why}") from error
    of = path.with_name(path.name.removesuffix(SUFFIX) + ".yaml")
    if not of.exists():
        raise ConfigError(f"{path}: there is no policy {of.name} beside it; cases are named after their policy's file")
    policy = wiring.load_policy(of)
    given = cases.read(path, text)
    results = cases.run(given, policy, schedules.due)
    return _Tested(path=path, text=text, cases=given, policy=policy, results=results)


def _tell(tested: Sequence[_Tested], mistakes: Sequence[str]) -> None:
    from retrainer import cases

    for each in tested:
        for result in each.results:
            if not result.is_met:
                say(cases.told(each.path, result, each.cases.zone, each.policy) + "\n")
    for line in mistakes:
        say(line)
    count, failed = _counts(tested)
    said = f"{count} case{'' if count == 1 else 's'} in {len(tested)} file{'' if len(tested) == 1 else 's'}: "
    said += f"{failed} not as expected" if failed else "all as expected" if count else "nothing was run"
    say(said + (f"; {len(mistakes)} mistake{'' if len(mistakes) == 1 else 's'} to mend first" if mistakes else ""))


def _tell_machines(tested: Sequence[_Tested], mistakes: Sequence[str]) -> None:
    from retrainer import cases

    count, failed = _counts(tested)
    told: Mapping[str, Any] = {
        "cases": count,
        "failed": failed,
        "mistakes": list(mistakes),
        "results": [cases.facts(t.path, r, t.cases.zone, t.policy) for t in tested for r in t.results],
    }
    say(json.dumps(told))


def _counts(tested: Sequence[_Tested]) -> tuple[int, int]:
    results = [r for t in tested for r in t.results]
    return len(results), sum(not r.is_met for r in results)


def _update(tested: Sequence[_Tested], *, unasked: bool) -> bool:
    """Rewrites expectations that were not met, once the person has seen how; False where they would rather not."""
    from retrainer import cases
    from retrainer.ports import ConfigError

    new = {t.path: cases.updated(t.text, t.results, t.cases.zone) for t in tested}
    changed = [t for t in tested if any(r.unmet for r in t.results)]
    for each in changed:
        name = str(each.path)
        lines = difflib.unified_diff(each.text.splitlines(), new[each.path].splitlines(), name, name, lineterm="")
        say("\n".join(lines))
    if not changed:
        return True
    if not unasked and not is_attended():
        raise ConfigError("there is nobody to ask whether this may be written; add --yes to write it unasked")
    if not unasked and not agreed("write this?"):
        return False
    for each in changed:
        each.path.write_text(new[each.path], encoding="utf-8")
    return True
