"""The private names of ministack that the local AWS is built on."""

import pytest

from retrainer.local import ministack_seams


def test_the_installed_ministack_has_every_seam() -> None:
    ministack_seams.check()


def test_a_missing_name_is_named_with_the_version_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ministack_seams, "SEAMS", {"ministack.core.router": ("SERVICE_PATTERNS", "gone")})
    with pytest.raises(
        ministack_seams.SeamError, match=r"ministack\.core\.router\.gone is missing .* ministack==1\.5\.33"
    ):
        ministack_seams.check()


def test_a_missing_module_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ministack_seams, "SEAMS", {"ministack.gone": ("x",)})
    with pytest.raises(ministack_seams.SeamError, match=r"ministack\.gone is missing"):
        ministack_seams.check()
