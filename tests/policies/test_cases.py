"""`retrainer test`: timelines drive the real decide; what is not met, or cannot be read, is told with its place."""

import json
from pathlib import Path

import pytest

from retrainer.cases import read
from retrainer.cli import main
from retrainer.ports import ConfigError

HERE = Path(__file__).parent
POLICIES = HERE.parents[1] / "policies"
POLICY = """\
model: churn
data:
  prefix: data/churn/
  timestamp: at
  columns:
    age: { kind: numerical, test: wasserstein }
    plan: { kind: categorical, test: psi }
  predictions: { prefix: predictions/churn/, key: id, prediction: p, label: churned, metric: accuracy }
triggers:
  drift: { share: 0.5, rows_min: 100, false_alarms_per_year: null }
  regret: { price: 100 }
  schedules: [{ name: nightly, cron: 0 2 * * * }]
guards: { cooldown: 6h, rows_min: 100 }
action: { candidates: [{ name: boosted }] }
gate: { metric: auc }
"""
CASE = "case: one\n  2026-01-01 03:00  champion promoted\n"

Out = pytest.CaptureFixture[str]


def write(directory: Path, cases: str, policy: str = POLICY) -> Path:
    (directory / "churn.yaml").write_text(policy)
    path = directory / "churn.cases.txt"
    path.write_text(cases)
    return path


def outcome(capsys: Out, *args: object) -> tuple[int, str]:
    code = main(["test", *map(str, args)])
    shown = capsys.readouterr()
    return code, shown.out + shown.err


# --- what ships ---


@pytest.mark.parametrize("directory", [POLICIES, HERE / "cases"], ids=["shipped", "everything"])
def test_policies_do_what_their_cases_say(directory: Path, capsys: Out) -> None:
    code, said = outcome(capsys, directory)
    assert code == 0, said
    assert said.rstrip().endswith("all as expected")


def test_every_shipped_policy_has_cases() -> None:
    for policy in POLICIES.glob("*.yaml"):
        assert policy.with_name(f"{policy.stem}.cases.txt").exists()


# --- what a case means ---


def test_drift_within_the_cooldown_waits_for_it_and_fires_by_itself(tmp_path: Path, capsys: Out) -> None:
    path = write(
        tmp_path,
        CASE
        + "  05:00  drift 0.5      -> hold: cooling_down until 09:00\n"
        + "  09:00  (time passes)  -> retrain: drift\n",
    )
    assert outcome(capsys, path) == (0, "1 case in 1 file: all as expected\n")


def test_predictions_and_a_classifier_are_told_as_columns_are(tmp_path: Path, capsys: Out) -> None:
    policy = POLICY.replace("metric: accuracy }", "metric: accuracy, test: psi }")
    policy = policy.replace("drift: { share: 0.5, ", "drift: { share: 0.6, classifier: 0.7, ")
    path = write(
        tmp_path,
        CASE
        + "  10:00  drift predictions=0.3 age=0.05         -> nothing: drift share 0.33\n"
        + "  11:00  drift predictions=0.3 age=0.3          -> retrain: drift\n"
        + "  12:00  execution ended promoted\n"
        + "  19:00  drift classifier=0.69                  -> nothing: drift share 0.00\n"
        + "  20:00  drift classifier=0.7                   -> retrain: drift\n"
        + "  21:00  execution ended promoted\n"
        + "  2026-01-02 01:00  drift 0.67                  -> hold: cooling_down\n",
        policy,
    )
    assert outcome(capsys, path) == (0, "1 case in 1 file: all as expected\n")


def test_losses_that_rise_above_the_first_ones_are_a_change_of_concept(tmp_path: Path, capsys: Out) -> None:
    path = write(
        tmp_path,
        CASE
        + "  10:00  rows arrive 5000, loss 0.1 on 5000 labels   -> nothing\n"
        + "  11:00  rows arrive 500, loss 0.11 on 500 labels    -> nothing: evidence of a rise\n"
        + "  12:00  rows arrive 2000, loss 0.3 on 2000 labels   -> retrain: concept\n"
        + "  13:00  execution ended promoted                    -> nothing\n",
        POLICY.replace("  regret: { price: 100 }\n", "  concept: {}\n"),
    )
    assert outcome(capsys, path) == (0, "1 case in 1 file: all as expected\n")


def test_an_unusable_column_holds_what_the_policy_says(tmp_path: Path, capsys: Out) -> None:
    path = write(
        tmp_path,
        CASE
        + '  10:00  drift 1, unusable age "7 infinite values"  -> hold: data_unusable\n'
        + "  11:00  rows arrive 100                            -> retrain: drift\n",
        POLICY.replace("  timestamp: at\n", "  timestamp: at\n  unusable: hold\n"),
    )
    assert outcome(capsys, path) == (0, "1 case in 1 file: all as expected\n")
    path = write(tmp_path, CASE + "  10:00  drift 1, unusable age  -> retrain: drift\n")
    assert outcome(capsys, path) == (0, "1 case in 1 file: all as expected\n")
    path = write(tmp_path, CASE + "  10:00  unusable agee  -> data_unusable\n")
    code, said = outcome(capsys, path)
    assert code == 2
    assert "'agee' is no column of the policy; write age" in said


def test_what_was_measured_holds_until_told_otherwise_or_the_champion_changes(tmp_path: Path, capsys: Out) -> None:
    path = write(
        tmp_path,
        CASE
        + "  04:00  pause\n"
        + "  10:00  drift 0.5                 -> hold: paused\n"
        + "  11:00  resume                    -> retrain: drift\n"
        + "  12:00  execution ended promoted  -> nothing\n"
        + "  19:00  rows arrive 500           -> nothing\n",
    )
    assert outcome(capsys, path)[0] == 0


def test_losses_come_with_the_batch_of_their_step(tmp_path: Path, capsys: Out) -> None:
    quiet = "".join("  +1h  loss 0.05 on 400 labels -> nothing\n" for _ in range(3))
    path = write(tmp_path, CASE + "  10:00  loss 0.05 on 400 labels  -> nothing\n" + quiet)
    assert outcome(capsys, path)[0] == 0


def test_regret_fires_once_the_losses_add_up_to_what_a_retraining_is_worth(tmp_path: Path, capsys: Out) -> None:
    steps = (
        CASE + "  10:00  loss 0.05 on 400 labels  -> nothing\n  11:00  loss 0.5 on 4000 labels  -> retrain: regret\n"
    )
    assert outcome(capsys, write(tmp_path, steps))[0] == 0


def test_a_schedule_fires_by_itself_and_a_week_day_is_the_next_such_one(tmp_path: Path, capsys: Out) -> None:
    """The first of January 2026 is a Thursday."""
    policy = POLICY.replace("0 2 * * *", "0 2 * * 1")
    path = write(
        tmp_path, CASE + "  +1h  rows arrive 500 -> nothing\n  Mon 02:00 -> retrain: schedule:nightly\n", policy
    )
    assert outcome(capsys, path)[0] == 0


def test_a_time_zone_is_one_for_all_times_of_the_file(tmp_path: Path, capsys: Out) -> None:
    path = write(
        tmp_path,
        "time zone: Europe/Berlin\ncase: one\n  2026-06-01 00:00 champion promoted\n  01:00 rows arrive 500\n"
        "  04:00 (time passes) -> hold: cooling_down until 06:00\n",
    )
    assert outcome(capsys, path)[0] == 0


# --- what is not as expected ---


def test_an_expectation_that_is_not_met_is_told_with_its_place_and_the_rules(tmp_path: Path, capsys: Out) -> None:
    path = write(tmp_path, CASE + "  05:00  drift 0.5  -> hold: cooling_down until 08:00\n")
    code, said = outcome(capsys, path)
    assert code == 1
    assert f"{path}:3: one\n" in said
    assert "  expected  -> hold: cooling_down until 08:00\n  got       -> hold: cooling_down until 09:00\n" in said
    assert "  because   cooling_down: until 2026-01-01 09:00" in said
    assert "+ drift: drift share 0.50" in said
    assert "! cooldown: 2:00:00 after the last end" in said
    assert said.endswith("1 case in 1 file: 1 not as expected\n")


@pytest.mark.parametrize(
    ("steps", "line"),
    [
        ("  10:00  drift 0.5\n", 3),
        ("  04:00  rows arrive 500\n  2026-01-02 12:00  (time passes)  -> nothing\n", 4),
    ],
    ids=["at a step that says nothing of it", "between two steps"],
)
def test_a_retraining_of_which_no_step_speaks_is_a_failure(tmp_path: Path, capsys: Out, steps: str, line: int) -> None:
    path = write(tmp_path, CASE + steps)
    code, said = outcome(capsys, path)
    assert code == 1
    assert f"{path}:{line}: one" in said
    assert "expected  -> no retraining" in said


def test_machines_are_told_the_same(tmp_path: Path, capsys: Out) -> None:
    path = write(tmp_path, CASE + "  05:00  drift 0.5  -> nothing\ncase: two\n  00:00  manual  -> hold: too_few_rows\n")
    code, said = outcome(capsys, path, "--json")
    told = json.loads(said)
    assert (code, told["cases"], told["failed"], told["mistakes"]) == (1, 2, 1, [])
    first, second = told["results"]
    assert (second["title"], second["met"]) == ("two", True)
    assert first["unmet"][0]["got"] == "hold: cooling_down until 09:00"
    assert first["unmet"][0]["tree"]["guards"][0]["name"] == "paused"


# --- rewriting ---


def test_update_writes_what_is_decided_and_keeps_all_else(tmp_path: Path, capsys: Out) -> None:
    path = write(
        tmp_path,
        "# mine\n"
        + CASE
        + "  05:00  drift 0.5  -> nothing  # why not?\n"
        + "  +1d    (time passes)\n"
        + "  +1h    pause\n",
    )
    code, said = outcome(capsys, path, "--update", "--yes")
    assert code == 0
    assert "+  05:00  drift 0.5  -> hold: cooling_down until 09:00  # why not?" in said
    assert path.read_text() == (
        "# mine\n"
        + CASE
        + "  05:00  drift 0.5  -> hold: cooling_down until 09:00  # why not?\n"
        + "  2026-01-01 09:00  (time passes)  -> retrain: drift\n"
        + "  2026-01-02 05:00    (time passes)\n"
        + "  +1h    pause\n"
    )


def test_nothing_is_rewritten_that_nobody_has_agreed_to(tmp_path: Path, capsys: Out) -> None:
    path = write(tmp_path, CASE + "  05:00  drift 0.5  -> nothing\n")
    before = path.read_text()
    code, said = outcome(capsys, path, "--update")
    assert code == 2
    assert "add --yes" in said
    assert path.read_text() == before


# --- mistakes ---

MISTAKES = (
    ("  2:00  drift 0.5", "3:3: '2:00' is no time; write 2026-01-31 06:00"),
    ("  25:00  drift 0.5", "3:3: '25:00' is no time (hour must be in 0..23)"),
    ("  2026-01-02  drift 0.5", "a date needs a time, as in 2026-01-31 00:00"),
    ("  05:00  drfit 0.5", "3:10: 'drfit' is nothing that can happen; write drift"),
    ("  05:00  it rains", "3:10: 'it' is nothing that can happen; write rows arrive N, drift SHARE"),
    ("  05:00  drift 31%", "3:16: '31%' is no number; write 0.31"),
    ("  05:00  drift 31", "3:16: 31 is no share; write 0 to 1, as in drift 0.31"),
    ("  05:00  drift 0.31", "3:10: of 2 watched columns the share that drifted is one of 0, 0.5, 1; write one of"),
    ("  05:00  drift agee=0.3", "3:16: 'agee' is not watched for drift; write age"),
    ("  05:00  drift age=high", "3:20: 'high' is no number; write rating=0.3 p=0.0001"),
    ("  05:00  drift 0.5, drift 1", "3:21: share is told twice in one step; write two steps"),
    ("  05:00  rows arrive 10,000", "3:24: a number has no comma in it; write 10000"),
    ("  05:00  rows arrive -5", "3:22: -5 is no count of rows"),
    ("  05:00  performance", "3:21: the metric's value is missing here"),
    ("  05:00  loss 0.3", "the number of labels is missing; write loss 0.12 on 500 labels"),
    ("  05:00  alarm high", "3:10: the policy has no alarms; declare high in its triggers"),
    ("  05:00  schedule nightli", "3:10: the policy has no schedule 'nightli'; write nightly"),
    ("  05:00  execution ended well", "3:26: 'well' is no end of an execution; write one of promoted, refused"),
    ("  05:00  execution ended refused", "3:10: no execution runs at this moment; a step above has to start one"),
    ("  05:00  refused", "3:10: 'refused' needs its subject; write execution ended refused"),
    ("  05:00  approve", "3:10: no execution runs at this moment"),
    ("  05:00  fleet busy with a", "3:10: the policy has neither guards.fleet nor guards.after"),
    ("  05:00  fleet loses a", "3:16: 'loses' is nothing a fleet does; write fleet busy with a, b"),
    ("  05:00  drift 0.5 > nothing", "3:20: '>' cannot stand here; write a comma between two things"),
    ("  05:00  drift 0.5 -> holds", "3:23: 'holds' cannot be expected; write hold"),
    ("  05:00  drift 0.5 -> hold: cooldown", "3:29: 'cooldown' holds nothing back; write cooling_down"),
    ("  05:00  drift 0.5 -> hold: paused until later", "'later' is no time; write"),
    ("  05:00  drift 0.5 -> retrain drift", "3:31: 'drift' cannot stand here; write retrain: drift"),
    ("  05:00  drift 0.5 -> retrain: drfit", "'drfit' is no trigger of this policy; write drift"),
    ('  05:00  manual "now', '3:17: a quote is not closed; write "text"'),
    ("  2025-12-31 05:00  drift 0.5", "3:3: 2025-12-31 05:00 is before the step above, which is at 2026-01-01 03:00"),
    ("cases: two", "3:1: 'cases:' begins nothing; write case:"),
    ("case:", "3:6: the case has no title"),
    ("case: one", "3:7: the case of line 1 has this title; write another"),
    ("case: two", "3:1: case 'two' has no steps"),
    ("time zone: UTC", "3:1: the time zone is one for the whole file; write it above the first case"),
)


@pytest.mark.parametrize(("line", "said"), MISTAKES)
def test_a_mistake_in_a_case_is_told_with_its_place_and_what_to_write(
    tmp_path: Path, capsys: Out, line: str, said: str
) -> None:
    code, told = outcome(capsys, write(tmp_path, f"{CASE}{line}\n"))
    assert code == 2
    assert said in told.replace(f"{tmp_path}/churn.cases.txt:", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1:1: there is no case here; write case: and a title"),
        ("  05:00 drift 1\n", "1:1: a step belongs to a case"),
        ("time zone: Berlin\n", "1:12: 'Berlin' is not a time zone; write an IANA name, as in Europe/Berlin"),
        ("case: a\n-> nothing\n", "2:1: an arrow belongs to a step"),
    ],
)
def test_a_file_that_holds_no_cases_is_told(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(Path("c"), text)
    assert f"c:{said}" in str(caught.value)


def test_a_time_that_summer_time_skips_is_a_mistake(tmp_path: Path, capsys: Out) -> None:
    path = write(tmp_path, "time zone: Europe/Berlin\ncase: a\n  2026-03-29 02:30  champion promoted\n")
    code, said = outcome(capsys, path)
    assert code == 2
    assert "2026-03-29 02:30 is skipped in Europe/Berlin: the clocks go forward then; write a later time" in said


def test_cases_without_a_policy_and_folders_without_cases_are_told(tmp_path: Path, capsys: Out) -> None:
    code, said = outcome(capsys, tmp_path)
    assert code == 2
    assert "holds no *.cases.txt file" in said
    path = write(tmp_path, CASE)
    (tmp_path / "churn.yaml").unlink()
    code, said = outcome(capsys, path)
    assert code == 2
    assert "there is no policy churn.yaml beside it" in said


def test_a_mistake_in_the_policy_is_told_as_validate_tells_it(tmp_path: Path, capsys: Out) -> None:
    write(tmp_path, CASE, POLICY.replace("cooldown: 6h", "cooldown: 6 h"))
    code, said = outcome(capsys, tmp_path)
    assert code == 2
    assert "churn.yaml:13:21: guards.cooldown: '6 h' is not a duration; write 6h" in said
