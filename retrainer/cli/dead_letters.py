"""`retrainer dlq`: what was not taken, and what becomes of it. Works on SQS itself, with or without a daemon."""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from retrainer.cli.arguments import Add, adder, for_machines
from retrainer.cli.terminal import agreed, is_attended, say, table, working
from retrainer.client import FailedError

if TYPE_CHECKING:
    from retrainer.adapters.dead_letters import DeadLetters, Letter

ID_CHARACTERS_MIN = 4
ID_CHARACTERS_SHOWN = 8
LIMIT = 1000
_LIMIT_HELP = "look at so many at the most (%(default)s); a look also ends after two minutes, or 256 MiB"
_MORE = "; more may be there, see --limit"


def add_to(add: Add) -> None:
    group = add(
        "dlq",
        None,
        "look at the dead-letter queue, and send its messages again or drop them",
        "retrainer dlq list",
        "retrainer dlq show 1f0c2a77",
    )
    add_here = adder(group)
    shown = add_here(
        "list",
        _list,
        "show what lies on the dead-letter queue, and why\n"
        "Messages are hidden from others while this looks, and given back at its end. Each look counts as a receive.",
        "retrainer dlq list",
        'retrainer dlq list --reason "is not allowed" --json',
    )
    show = add_here(
        "show", _show, "show one message whole, but for secrets, which are masked", "retrainer dlq show 1f0c2a77"
    )
    show.add_argument("id", metavar="ID", help="its id, or how the id begins (4 characters at the least)")
    replay = add_here(
        "replay",
        _replay,
        "send messages to the events queue again, as after the cause was mended\n"
        "Each is sent to RETRAINER_QUEUE_URL, wherever it says it came from, and then deleted here. A crash in\n"
        "between leaves it on both queues, which is harmless: the daemon knows an event by its identity, and takes it\n"
        "once. What it refuses again comes back here, under a new id.",
        "retrainer dlq replay 1f0c2a77 83be",
        'retrainer dlq replay --all --reason "is not allowed"',
    )
    drop = add_here(
        "drop",
        _drop,
        "delete messages for good, after asking; says which",
        "retrainer dlq drop 1f0c2a77",
        'retrainer dlq drop --all --reason "this is not JSON" --yes',
    )
    drop.add_argument("--yes", action="store_true", help="do not ask")
    for chooses in (replay, drop):
        chooses.add_argument("ids", nargs="*", metavar="ID", help="an id, or how it begins (4 characters at the least)")
        chooses.add_argument("--all", action="store_true", help="all that lie there when this looks")
    for filters in (shown, replay, drop):
        filters.add_argument("--reason", metavar="TEXT", default="", help="only messages whose reason has this in it")
    for each in (shown, show, replay, drop):
        each.add_argument("--limit", type=_limit, default=LIMIT, help=_LIMIT_HELP)
        for_machines(each)


def _limit(text: str) -> int:
    from retrainer.adapters.dead_letters import LIMIT_MAX

    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= LIMIT_MAX):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {LIMIT_MAX}")
    return int(text)


def _list(args: argparse.Namespace) -> int:
    with _opened() as queue:
        found = [_brief(letter) for letter in _looked(queue, args.limit) if args.reason in letter.reason]
        is_whole = queue.is_whole
    if args.json:
        say(json.dumps(found))
        return 0
    if found:
        cells = [(b["id"][:ID_CHARACTERS_SHOWN], b["sent_at"], b["received"], b["kind"], b["reason"]) for b in found]
        table(("id", "sent at", "received", "kind", "reason"), cells)
    say(f"{_counted(len(found))}{'' if is_whole else _MORE}")
    return 0


def _show(args: argparse.Namespace) -> int:
    from retrainer.explain import printable

    with _opened() as queue:
        (letter,) = _named([args.id], list(_looked(queue, args.limit)), is_whole=queue.is_whole)
    told = {**_brief(letter), "moved_from": letter.moved_from, "attributes": _masked(dict(letter.attributes))}
    body = _read(letter.body)
    if args.json:
        say(json.dumps({**told, "body": body}))
        return 0
    for name, value in told.items():
        if name != "attributes" and value is not None:
            say(f"{name.replace('_', ' '):<12}{printable(value)}")
    for name, value in told["attributes"].items():
        say(f"{'attribute':<12}{printable(name)} = {printable(value)}")
    say("")
    text = body if isinstance(body, str) else json.dumps(body, indent=2, ensure_ascii=False)
    for line in text.split("\n"):
        say(printable(line))
    return 0


def _replay(args: argparse.Namespace) -> int:
    _check(args)
    with _opened() as queue:
        batches = [[letter] for letter in _chosen(queue, args)]
        _each(queue, batches, args, "sent to the events queue again", lambda batch: queue.send_again(batch[0]))
    return 0


def _drop(args: argparse.Namespace) -> int:
    from retrainer.ports import ConfigError

    _check(args)
    if not args.yes and not is_attended():
        raise ConfigError("there is nobody to ask whether they may be dropped; add --yes to drop them unasked")
    with _opened() as queue:
        chosen = _chosen(queue, args)
        if chosen and not args.yes:
            for letter in chosen:
                say(_line(_brief(letter)))
            if not agreed(f"drop {_counted(len(chosen))} for good?"):
                raise FailedError("nothing was dropped")
        _each(queue, [chosen[i : i + 10] for i in range(0, len(chosen), 10)], args, "dropped", lambda batch: None)
    return 0


def _each(
    queue: "DeadLetters",
    batches: Sequence[Sequence["Letter"]],
    args: argparse.Namespace,
    what: str,
    act: Callable[[Sequence["Letter"]], None],
) -> None:
    """Act on each batch, then delete it; tells what was done, also when something came between."""
    done: list[dict[str, Any]] = []
    try:
        with working(what) as progress:
            for batch in batches:
                act(batch)
                if left := queue.drop(batch):
                    names = ", ".join(letter.id for letter in left)
                    raise FailedError(f"SQS did not delete {_counted(len(left))}, which may still be there: {names}")
                done += map(_brief, batch)
                progress(f"{len(done)} of {sum(map(len, batches))} {what}")
    finally:
        _tell(what, done, args, is_whole=queue.is_whole)


def _check(args: argparse.Namespace) -> None:
    from retrainer.ports import ConfigError

    if bool(args.ids) == args.all:
        raise ConfigError("say which messages: ids as `retrainer dlq list` shows them, or --all, and not both")
    if args.reason and not args.all:
        raise ConfigError("--reason goes with --all: a message named by its id is taken whatever its reason")


def _opened() -> closing["DeadLetters"]:
    from retrainer.adapters.dead_letters import DeadLetters
    from retrainer.settings import Queues, read

    queues = read(Queues)
    return closing(DeadLetters.open(queues.dlq_url, queues.queue_url))


def _looked(queue: "DeadLetters", limit: int) -> Iterator["Letter"]:
    with working("looking at the dead-letter queue") as progress:
        for count, letter in enumerate(queue.look(limit), 1):
            progress(f"looking at the dead-letter queue: {_counted(count)}")
            yield letter


def _chosen(queue: "DeadLetters", args: argparse.Namespace) -> Sequence["Letter"]:
    # All are seen before any is sent again: one that is refused again comes back, and would be sent for ever.
    letters = list(_looked(queue, args.limit))
    if args.all:
        return [letter for letter in letters if args.reason in letter.reason]
    return _named(args.ids, letters, is_whole=queue.is_whole)


def _named(ids: Sequence[str], letters: Sequence["Letter"], *, is_whole: bool) -> Sequence["Letter"]:
    """The letters of these ids, each once. Raises FailedError when one is not found, or means several."""
    named: dict[str, Letter] = {}
    for given in ids:
        found = [letter for letter in letters if letter.id.startswith(given)]
        if len(given) < ID_CHARACTERS_MIN:
            raise FailedError(f"{given!r} is too short for an id: give {ID_CHARACTERS_MIN} characters at the least")
        if not found:
            why = "it may be gone, or in another reader's hands" if is_whole else "but not all were seen, see --limit"
            raise FailedError(f"no message on the dead-letter queue has an id that begins with {given!r}: {why}")
        if len(found) > 1:
            names = ", ".join(letter.id for letter in found)
            raise FailedError(f"{given!r} begins the ids of several messages: {names}")
        named[found[0].id] = found[0]
    return list(named.values())


def _brief(letter: "Letter") -> dict[str, Any]:
    return {
        "id": letter.id,
        "sent_at": f"{letter.sent_at:%Y-%m-%dT%H:%M:%SZ}",
        "received": letter.received,
        "bytes": len(letter.body.encode()),
        "kind": _kind(letter.body),
        "reason": _masked(letter.reason),
    }


def _kind(body: str) -> str:
    """What it would be if it were taken; "-" when it cannot even be said."""
    from retrainer.adapters import eventbridge
    from retrainer.telemetry import word

    nobody = eventbridge.Allowed(accounts=frozenset(), buckets=frozenset())
    kind = eventbridge.EnvelopeParser(nobody).parse(body).kind
    return "-" if kind == eventbridge.UNKNOWN else word(kind)


def _read(body: str) -> Any:
    """The body as JSON where it is some, else as text, its secrets masked either way."""
    try:
        return _masked(json.loads(body))
    except (ValueError, RecursionError):
        return _masked(body)


def _masked(value: Any) -> Any:
    from retrainer.adapters.logs import masked

    return masked(value)


def _tell(what: str, done: Sequence[dict[str, Any]], args: argparse.Namespace, *, is_whole: bool) -> None:
    if args.json:
        say(json.dumps(done))
        return
    for brief in done:
        say(_line(brief))
    more = _MORE if args.all and not is_whole else ""
    say(f"{_counted(len(done))} {what}{more}")


def _line(brief: dict[str, Any]) -> str:
    from retrainer.explain import printable

    return printable(f"{brief['id']}  {brief['sent_at']}  {brief['kind']}: {brief['reason']}")


def _counted(count: int) -> str:
    return f"{count} message{'' if count == 1 else 's'}"
