"""Why a decision was as it was: one word, counted, logged and explained alike."""

from enum import StrEnum


class Reason(StrEnum):
    """Every decision carries one, above all when nothing is done."""

    # A retraining starts.
    RETRAINING = "retraining"
    # A trigger is met and kept, because a guard objects.
    PAUSED = "paused"
    RUNNING = "running"
    QUIET_HOURS = "quiet_hours"
    FROZEN = "frozen"
    COOLING_DOWN = "cooling_down"
    TOO_FEW_ROWS = "too_few_rows"
    OVER_BUDGET = "over_budget"
    BACKING_OFF = "backing_off"
    FLEET_BUSY = "fleet_busy"
    AFTER_OTHERS = "after_others"
    # Nothing asks for a retraining.
    NOTHING_MET = "nothing_met"
    MEASURING = "measuring"
    NOT_WATCHED = "not_watched"
    NOTED = "noted"
    RESUMED = "resumed"
    # Something does not fit what is known.
    STALE = "stale"
    NOT_WAITING = "not_waiting"
    DATA_UNUSABLE = "data_unusable"
    EVIDENCE_FAILED = "evidence_failed"
    EFFECT_FAILED = "effect_failed"
    # An execution's way.
    EXECUTION_STARTED = "execution_started"
    EXECUTION_FAILED = "execution_failed"
    APPROVAL_REQUESTED = "approval_requested"
    APPROVED = "approved"
    REJECTED = "rejected"
    PROMOTED = "promoted"
    REFUSED = "refused"
    SUPERSEDED = "superseded"


HOLDS = (
    Reason.PAUSED,
    Reason.RUNNING,
    Reason.QUIET_HOURS,
    Reason.FROZEN,
    Reason.COOLING_DOWN,
    Reason.DATA_UNUSABLE,
    Reason.TOO_FEW_ROWS,
    Reason.OVER_BUDGET,
    Reason.BACKING_OFF,
    Reason.FLEET_BUSY,
    Reason.AFTER_OTHERS,
)
"""Reasons of a guard: a trigger is met, and kept."""
