"""Policies from files: a mistake is told with its place and its cure, and a broken file changes nothing."""

import json
import re
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from retrainer.adapters.policy_files import SIZE_MAX_BYTES, Defaults, PolicyFiles, load, schema
from retrainer.core.record import digest, dump
from retrainer.ports import ConfigError

POLICIES = Path(__file__).parents[2] / "policies"
GOOD = (Path(__file__).parent / "policy.yaml").read_text()
DEFAULTS = Defaults(
    bucket="artifacts", state_machine="arn:aws:states:eu-central-1:111122223333:stateMachine:retraining"
)


def told(directory: Path, text: str | bytes, defaults: Defaults = DEFAULTS) -> str:
    """What loading the text says, without the directory."""
    path = directory / "p.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load(path, defaults)
    return str(caught.value).replace(f"{directory}/", "")


def with_(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


# --- the shipped policies ---


def test_the_shipped_policies_load_and_the_settings_fill_in_what_they_leave_out() -> None:
    files = PolicyFiles(POLICIES, DEFAULTS)
    assert files.errors() == {}
    assert sorted(files.current()) == ["flights", "images", "recommender", "recommender-nightly"]
    for model, (policy, policy_hash) in files.current().items():
        assert policy.model == model
        assert (policy.data.bucket, policy.action.state_machine) == (DEFAULTS.bucket, DEFAULTS.state_machine)
        assert policy_hash == digest(dump(policy))


def test_what_a_policy_says_itself_is_not_overruled_by_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(with_("  prefix: data/recommender/\n", "  prefix: data/recommender/\n  bucket: elsewhere\n"))
    assert load(path, DEFAULTS).data.bucket == "elsewhere"


def test_the_machine_that_counts_large_windows_is_filled_in_too_where_the_settings_name_one(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(with_("\nwindows:\n", "\nwindows:\n  scale_out: { bytes_min: 1000000 }\n"))
    with pytest.raises(ConfigError, match=r"windows\.scale_out\.state_machine: is missing; write the ARN"):
        load(path, DEFAULTS)
    arn = "arn:aws:states:eu-central-1:111122223333:stateMachine:profile"
    wanted = load(path, replace(DEFAULTS, profile_state_machine=arn)).windows.scale_out
    assert wanted
    assert (wanted.bytes_min, wanted.state_machine) == (1_000_000, arn)


def test_the_schema_for_editors_is_up_to_date() -> None:
    assert (POLICIES / "schema.json").read_text() == schema(), "run make schema"


def test_the_schema_asks_for_what_a_file_must_have_and_shows_durations_as_they_are_written() -> None:
    definitions = json.loads(schema())["$defs"]
    assert definitions["Data"]["required"] == ["prefix", "timestamp"]
    assert definitions["Action"]["required"] == ["candidates"]
    assert definitions["Guards"]["properties"]["cooldown"]["default"] == "6h"
    assert definitions["Timeouts"]["properties"]["wait"]["default"] == "2h"


def test_yaml_means_what_it_seems_to(tmp_path: Path) -> None:
    """`no` and `on` are texts and 010 is no octal: the traps of YAML 1.1 are not laid."""
    path = tmp_path / "p.yaml"
    path.write_text(with_("{ model: sasrec }", "{ model: no, size: 010, date: 2026-01-31, on: off, rate: 1e-3 }"))
    (candidate,) = load(path, DEFAULTS).action.candidates
    assert candidate.hyperparameters == {
        "model": "no",
        "size": "10",
        "date": "2026-01-31",
        "on": "off",
        "rate": "0.001",
    }
    assert load(path, DEFAULTS).guards.cooldown == timedelta(seconds=5)


# --- mistakes of a new user ---

MISTAKES = (
    ("cooldown: 5s", "cool_down: 5s", "p.yaml:34:3: guards.cool_down: there is no such field; write cooldown"),
    (
        "cooldown: 5s",
        "cooldown: 5 seconds",
        "p.yaml:34:13: guards.cooldown: '5 seconds' is not a duration; write 5s",
    ),
    (
        "rating: { kind: numerical, test: wasserstein",
        "rating: { kind: numerical, test: waserstein",
        "p.yaml:13:38: data.columns.rating.test: 'waserstein' is not known; write wasserstein (of psi, jensenshannon, "
        "wasserstein, hellinger, TVD, missing, unseen, ks, chisquare or g_test)",
    ),
    (
        "test: jensenshannon",
        "test: ks",
        "p.yaml:15:39: data.columns.genre: test ks is for numerical columns; write psi, jensenshannon, hellinger, TVD, "
        "missing, unseen, chisquare or g_test",
    ),
    (
        "  prefix: data/recommender/\n",
        "  prefix: data/recommender\n",
        "p.yaml:9:11: data.prefix: 'data/recommender' cannot be used; write data/recommender/ (a key prefix that ends "
        "in /, as in data/recommender/)",
    ),
    (
        "  prefix: data/recommender/\n",
        "",
        "p.yaml:8:1: data.prefix: is missing; write a key prefix that ends in /, as in data/recommender/",
    ),
    (
        "share: 0.5",
        "share: 50",
        "p.yaml:30:19: triggers.drift.share: 50 is not a share of one; write 0.5 for 50 %",
    ),
    (
        "share: 0.5",
        "share: .nan",
        "p.yaml:30:19: .nan is not a number to compare with; write one",
    ),
    (
        "model: recommender\n",
        "model: Recommender 2\n",
        "p.yaml:6:8: model: 'Recommender 2' cannot be used; write recommender-2 (lower-case letters, digits and -, at "
        "most 24, as in model: recommender)",
    ),
    ("approval: auto", "approval: yes", "p.yaml:53:11: approval: 'yes' is not known; write auto or manual"),
    (
        "approval: auto",
        "approval: auto\napproval: manual",
        "p.yaml:54:1: approval: stands here twice; remove one of the two",
    ),
    (
        "approval: auto",
        "\tapproval: auto",
        "p.yaml:53:1: this is not YAML: found character '\\t' that cannot start any token; write spaces, not tabs",
    ),
    ("approval: auto", "approval: *a", "p.yaml:53:11: the alias 'a'; write the value out instead"),
    ("genre: {", "genre: &a {", "p.yaml:15:12: the anchor 'a'; write the value out instead"),
    (
        "approval: auto",
        "approval: !!python/name:os.system auto",
        "p.yaml:53:11: the tag tag:yaml.org,2002:python/name:os.system; write the plain value instead",
    ),
    (
        "spot: true",
        "spot: maybe",
        "p.yaml:44:13: action.candidates.0.spot: 'maybe' is neither yes nor no; write true or false",
    ),
    (
        "[popularity, recent_popularity]",
        "popularity",
        "p.yaml:51:14: gate.baselines: 'popularity' is not a list; write baselines: [popularity]",
    ),
    (
        "[user_id, item_id, timestamp]",
        "[user_id, 5]",
        "p.yaml:11:31: data.required_columns.1: 5 is not a text; write it in quotes",
    ),
    (
        "triggers:\n",
        "triggers:\n  schedules: [{ name: n, cron: 0 2 * * }]\n",
        "p.yaml:30:32: triggers.schedules.0.cron: '0 2 * *' is not a cron expression of five fields; write "
        "one, as in 0 2 * * *",
    ),
    (
        "  performance: { drop: 0.2, labels_min: 200 }\n",
        "  performance: { labels_min: 200 }\n",
        "p.yaml:31:3: triggers.performance: performance needs drop, limit or both, as in drop: 0.15",
    ),
    (
        "gate:\n  metric: ndcg_at_10\n  min_gain: 0\n  baselines: [popularity, recent_popularity]\n",
        "",
        "p.yaml:1:1: gate: is missing; write the section gate: with at least metric:",
    ),
)


@pytest.mark.parametrize(("old", "new", "said"), MISTAKES)
def test_a_mistake_is_told_with_its_place_its_field_and_what_to_write(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert told(tmp_path, with_(old, new)) == said


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = GOOD.replace("share: 0.5", "share: half").replace("min_gain: 0", "min_gian: 0").replace("5s", "soon")
    lines = told(tmp_path, text).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["triggers.drift.share", "guards.cooldown", "gate.min_gian"]


def test_a_bucket_that_nobody_names_is_asked_for(tmp_path: Path) -> None:
    said = told(tmp_path, GOOD, Defaults())
    assert "p.yaml:8:1: data.bucket: is missing; write the bucket that batches arrive in, or leave it out where" in said
    assert "action.state_machine: is missing; write arn:aws:states:" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "p.yaml:1:1: a policy is a mapping; write fields, as in model: recommender"),
        ("- a\n", "p.yaml:1:1: a policy is a mapping; write fields, as in model: recommender"),
        ("a: 1\n---\nb: 2\n", "p.yaml:2:1: this is not YAML: but found another document; write one policy a file"),
        ("? {a: b}\n: c\n", "p.yaml:1:3: a key is not a text; write a field's name"),
        ("[" * 200_000, "p.yaml:1:17: more than 16 levels deep"),
        ("a: " + "{b: " * 50_000, "p.yaml:1:"),
        ("x: \x00", "p.yaml:1:1: this is not YAML"),
        (b"model: \xff", "p.yaml: it is not UTF-8 text (byte 7); save it as UTF-8"),
        ("x" * (SIZE_MAX_BYTES + 1), "p.yaml: it is larger than 256 KiB; a policy is a page, not data"),
        ("x: " + "9" * 5000, "p.yaml:1:4: a text of 5000 characters; at most 4096 are taken"),
        (
            with_("cooldown: 5s", "cooldown: 99999999999999999d"),
            "p.yaml:34:13: guards.cooldown: '99999999999999999d' is not a duration",
        ),
    ],
)
def test_a_file_that_is_no_policy_is_refused_with_its_place_and_in_no_time(
    tmp_path: Path, text: str | bytes, said: str
) -> None:
    begun = time.process_time()
    assert told(tmp_path, text).startswith(said)
    assert time.process_time() - begun < 5


def test_a_file_that_is_not_there_is_a_mistake_to_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it cannot be read: No such file"):
        load(tmp_path / "p.yaml", DEFAULTS)


# --- a directory of them ---


def put(directory: Path, name: str, text: str) -> Path:
    """Write a file so that its stamp is another than before, whatever the clock's grain."""
    path = directory / name
    new = directory / f".{name}.new"
    new.write_text(text)
    new.replace(path)
    return path


def test_a_file_that_comes_changes_or_goes_is_seen_by_the_next_reload(tmp_path: Path) -> None:
    files = PolicyFiles(tmp_path, DEFAULTS)
    assert (files.current(), files.reload()) == ({}, frozenset())
    path = put(tmp_path, "a.yaml", GOOD)
    assert files.reload() == {"recommender"}
    assert files.reload() == frozenset()
    before = files.current()["recommender"][1]
    put(tmp_path, "a.yaml", with_("share: 0.5", "share: 0.6"))
    assert files.reload() == {"recommender"}
    assert files.current()["recommender"][1] != before
    path.unlink()
    assert files.reload() == {"recommender"}
    assert files.current() == {}


def test_a_comment_is_no_change(tmp_path: Path) -> None:
    put(tmp_path, "a.yaml", GOOD)
    files = PolicyFiles(tmp_path, DEFAULTS)
    put(tmp_path, "a.yaml", GOOD + "# reviewed\n")
    assert files.reload() == frozenset()


def test_a_file_that_breaks_leaves_its_last_good_policy_in_force_and_is_told_until_it_is_mended(tmp_path: Path) -> None:
    path = put(tmp_path, "a.yaml", GOOD)
    files = PolicyFiles(tmp_path, DEFAULTS)
    before = files.current()
    put(tmp_path, "a.yaml", with_("approval: auto", "aproval: auto"))
    for _ in range(3):
        assert files.reload() == frozenset()
        assert files.current() == before
        assert files.errors()[path].endswith("a.yaml:53:1: aproval: there is no such field; write approval")
    put(tmp_path, "a.yaml", GOOD)
    assert files.reload() == frozenset()
    assert files.errors() == {}


def test_one_broken_file_does_not_keep_the_others_out(tmp_path: Path) -> None:
    put(tmp_path, "a.yaml", "model: [")
    put(tmp_path, "b.yaml", GOOD)
    files = PolicyFiles(tmp_path, DEFAULTS)
    assert list(files.current()) == ["recommender"]
    assert [p.name for p in files.errors()] == ["a.yaml"]


def after(model: str, *others: str) -> str:
    text = with_("model: recommender", f"model: {model}")
    return text.replace("  cooldown: 5s\n", f"  cooldown: 5s\n  after: [{', '.join(others)}]\n") if others else text


def test_models_that_would_wait_for_one_another_for_ever_are_told_and_what_was_in_force_stays(tmp_path: Path) -> None:
    a, b = put(tmp_path, "a.yaml", after("a", "b")), put(tmp_path, "b.yaml", after("b", "c"))
    put(tmp_path, "c.yaml", after("c"))
    files = PolicyFiles(tmp_path, DEFAULTS)
    before = files.current()
    assert sorted(before) == ["a", "b", "c"]
    c = put(tmp_path, "c.yaml", after("c", "a"))
    assert files.reload() == frozenset()
    assert files.current() == before
    assert set(files.errors()) == {a, b, c}
    assert re.search("guards.after: . after . after . after . would wait for one another", files.errors()[a])
    put(tmp_path, "b.yaml", after("b"))
    assert files.reload() == {"b", "c"}
    assert files.errors() == {}


def test_new_models_that_would_wait_for_one_another_are_not_taken(tmp_path: Path) -> None:
    put(tmp_path, "a.yaml", after("a", "b"))
    put(tmp_path, "b.yaml", after("b", "a"))
    put(tmp_path, "c.yaml", after("c"))
    assert list(PolicyFiles(tmp_path, DEFAULTS).current()) == ["c"]


def test_two_files_for_one_model_are_both_told_and_what_was_in_force_stays(tmp_path: Path) -> None:
    a = put(tmp_path, "a.yaml", GOOD)
    files = PolicyFiles(tmp_path, DEFAULTS)
    before = files.current()
    b = put(tmp_path, "b.yaml", with_("share: 0.5", "share: 0.9"))
    assert files.reload() == frozenset()
    assert files.current() == before
    assert set(files.errors()) == {a, b}
    assert "a.yaml and b.yaml are both for recommender; give one of them another model" in files.errors()[a]
    assert PolicyFiles(tmp_path, DEFAULTS).current() == {}


def test_a_directory_that_is_not_there_is_a_mistake_to_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a directory; name the one that holds the policies"):
        PolicyFiles(tmp_path / "policies", DEFAULTS)
