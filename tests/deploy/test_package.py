"""The Lambda code: whole, minimal, and the same bytes every time."""

import subprocess
import sys
from pathlib import Path

import package


def test_the_archive_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    first = package.archive(package.assemble(tmp_path / "one"))
    assert first == package.archive(package.assemble(tmp_path / "two"))


def test_a_file_that_is_gone_from_the_sources_is_gone_from_the_build(tmp_path: Path) -> None:
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "old.py").touch()
    assert not (package.assemble(tmp_path) / "steps" / "old.py").exists()


def test_every_step_imports_from_the_build_alone(tmp_path: Path) -> None:
    built = package.assemble(tmp_path / "build")
    steps = ["validate", "preprocess", "evaluate", "gate", "register", "promote", "notify", "profile"]
    imports = "; ".join(f"import steps.{name}" for name in steps)
    code = f"import sys; sys.path.insert(0, {str(built)!r}); {imports}; print(steps.gate.judge.__code__.co_filename)"
    found = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env={}, capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith(str(built))


def test_nothing_of_the_daemon_but_the_gate_and_the_counting_of_batches_is_shipped(tmp_path: Path) -> None:
    built = package.assemble(tmp_path)
    shipped = {p.relative_to(built).as_posix() for p in (built / "retrainer").rglob("*") if p.is_file()}
    assert shipped == {*package.SHARED, *package.EMPTY}
    assert {Path(name).parent.as_posix() for name in shipped} == {
        "retrainer",
        "retrainer/core",
        "retrainer/drift",
        "retrainer/adapters",
        "retrainer/adapters/datasets",
    }
    assert {p.name for p in (built / "retrainer" / "core").iterdir()} == {"__init__.py", "gate.py", "window.py"}
    assert all((built / name).stat().st_size == 0 for name in package.EMPTY)


def test_the_steps_do_without_what_a_lambda_function_does_not_have(tmp_path: Path) -> None:
    """Only boto3 is there, and pyarrow with numpy by the layer."""
    built = package.assemble(tmp_path / "build")
    code = f"import sys; sys.path.insert(0, {str(built)!r}); import steps.profile; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env={}, capture_output=True, text=True, check=True
    )
    assert not {"pydantic", "evidently", "scipy", "aiobotocore", "PIL", "yaml"} & set(found.stdout.split())
