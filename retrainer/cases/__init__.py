"""A policy's own tests: readable timelines, run through the real `decide` on a virtual clock.

policies/README.md is the reference of the language. A mistake in a file of cases is told like one in a policy:
file:line:column and what to write instead.
"""

from retrainer.cases.language import Case, Cases, MistakeError
from retrainer.cases.reading import read
from retrainer.cases.results import CaseResult, facts, told, updated
from retrainer.cases.timeline import run

__all__ = ["Case", "CaseResult", "Cases", "MistakeError", "facts", "read", "run", "told", "updated"]
