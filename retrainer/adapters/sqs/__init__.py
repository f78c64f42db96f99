"""The queue that events arrive on; `SqsInbox` is all that others need of it."""

from retrainer.adapters.sqs.inbox import SqsInbox

__all__ = ["SqsInbox"]
