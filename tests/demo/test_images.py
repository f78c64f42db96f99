"""What is said of the time from the event to the new endpoint."""

import json
from datetime import UTC, datetime, timedelta
from typing import cast

from retrainer.demo.images import Watch
from retrainer.demo.scene import Scene


class Endpoint:
    """Answers with the weights that it is given."""

    weights = "old"

    def ask(self, body: bytes) -> bytes:
        del body
        model = {"weights_sha256": self.weights, "generation": 1}
        return json.dumps({"predictions": [{"label": "joy", "probability": 1.0}], "model": model}).encode()


def test_a_watch_hears_the_first_answer_of_another_model_and_asks_no_more() -> None:
    endpoint = Endpoint()
    watch = Watch(cast(Scene, endpoint), b"", "old")
    watch.look()
    assert watch.seconds([]) == {}
    endpoint.weights = "new"
    watch.look()
    watch.look()
    assert watch.asked == 2
    assert list(watch.seconds([])) == ["new_model_answers"]


def test_the_steps_of_the_loop_are_told_in_their_order_and_only_the_first_of_each() -> None:
    watch = Watch(cast(Scene, Endpoint()), b"", "old")
    decided = [("noted", 1), ("promoted", 30), ("retraining", 2), ("retraining", 9)]
    now = datetime.now(UTC)
    told = [{"reason": reason, "at": (now + timedelta(seconds=after)).isoformat()} for reason, after in decided]
    assert list(watch.seconds(told).items()) == [("retraining", 2.0), ("promoted", 30.0)]
