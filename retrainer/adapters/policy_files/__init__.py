"""Policies come from YAML files, read strictly; every mistake is told as file:line:column, field, and what to write.

YAML 1.2 (`on` and `NO` are texts), one document, no anchors, no tags, no directives, no key twice: a policy means what
it seems to.
"""

from retrainer.adapters.policy_files.files import Defaults, PolicyFiles, load
from retrainer.adapters.policy_files.schema import schema
from retrainer.adapters.policy_files.strict_yaml import SIZE_MAX_BYTES

__all__ = ["SIZE_MAX_BYTES", "Defaults", "PolicyFiles", "load", "schema"]
