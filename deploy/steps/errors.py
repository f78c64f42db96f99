"""What a step can fail with. The class name becomes the execution's error, the sentence its cause."""


class StepError(Exception):
    """Base of all; the message is one sentence that names the object, column or name it is about."""


class InputError(StepError):
    """The execution's input breaks the naming rules; whoever starts executions has to change."""


class ManifestError(StepError):
    """The manifest is missing, altered, or not about this execution."""


class DataError(StepError):
    """An object of the manifest is missing, changed, unreadable, or lacks what training needs."""


class EvaluationError(StepError):
    """No candidate came out of training and evaluation with metrics."""


class PromotionError(StepError):
    """The endpoint cannot be changed to the new model."""


class EndpointBusyError(StepError):
    """The endpoint is in the middle of another change; the state machine tries again later."""


class FenceBusyError(StepError):
    """Somebody else wrote the fence or the champion pointer at the same moment; tried again."""
