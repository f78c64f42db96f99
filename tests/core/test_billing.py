"""What an execution's training was billed, as a failed one tells it in its cause."""

import pytest

from retrainer.core.execution import Billing


def test_a_failed_execution_tells_its_billing_at_the_end_of_its_cause() -> None:
    billing = Billing.of_failed("The job failed: data. Trained 90 s, billed 30 s, interrupted 2 times.")
    assert billing == Billing(seconds=90, billable_seconds=30, interruptions=2)
    assert billing.saving == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "cause",
    [
        "",
        "The job failed.",
        "Trained 90 s, billed 30 s, interrupted 2 times",
        " Trained 9 s, billed 3 s, interrupted 2 times. No.",
    ],
)
def test_a_cause_that_ends_otherwise_tells_none(cause: str) -> None:
    assert Billing.of_failed(cause) is None
