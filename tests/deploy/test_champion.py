"""The fence and the pointer: a late, older execution never wins, and the pointer never names what does not serve."""

import threading
from dataclasses import replace

import pytest

from steps import champion, names
from steps.champion import Champion, close_fence, crown
from steps.objects import read_document, replace_document
from tests.deploy.aws_clients import client


def made(model: str, generation: int) -> Champion:
    execution = f"{model}-g{generation}-0123abcd"
    return Champion(
        model=model,
        generation=generation,
        model_package_arn=f"arn:aws:sagemaker:us-east-1:000000000000:model-package/{model}/{generation}",
        model_data_url=f"s3://bucket/executions/{execution}/models/job/output/model.tar.gz",
        endpoint_config=execution,
        execution=execution,
    )


def promoted(bucket: str, challenger: Champion, judged_against: int = 0) -> None:
    s3 = client("s3")
    assert close_fence(s3, bucket, challenger, judged_against) is None
    assert crown(s3, bucket, challenger) is None


def test_the_first_model_is_crowned(bucket: str, model: str) -> None:
    promoted(bucket, made(model, 1))
    assert champion.read(client("s3"), bucket, model) == made(model, 1)


def test_a_newer_model_follows(bucket: str, model: str) -> None:
    promoted(bucket, made(model, 1))
    promoted(bucket, made(model, 2), judged_against=1)
    assert champion.read(client("s3"), bucket, model) == made(model, 2)


def test_an_older_execution_finds_the_fence_closed(bucket: str, model: str) -> None:
    promoted(bucket, made(model, 3))
    said = close_fence(client("s3"), bucket, made(model, 2), judged_against=0)
    assert said == "Generation 3 took the fence before generation 2."


def test_another_execution_of_the_same_generation_finds_it_closed_too(bucket: str, model: str) -> None:
    promoted(bucket, made(model, 3))
    twin = replace(made(model, 3), execution=f"{model}-g3-ffffffff")
    assert close_fence(client("s3"), bucket, twin, judged_against=3) is not None


def test_a_challenger_judged_against_a_former_champion_is_superseded(bucket: str, model: str) -> None:
    promoted(bucket, made(model, 1))
    promoted(bucket, made(model, 2), judged_against=1)
    said = close_fence(client("s3"), bucket, made(model, 3), judged_against=1)
    assert said == "Generation 3 was compared with generation 1, but generation 2 is the champion by now."


def test_both_steps_may_be_repeated(bucket: str, model: str) -> None:
    for _ in range(3):
        promoted(bucket, made(model, 1))
    assert champion.read(client("s3"), bucket, model) == made(model, 1)


def test_a_promotion_that_died_behind_the_fence_does_not_block_the_next(bucket: str, model: str) -> None:
    s3 = client("s3")
    assert close_fence(s3, bucket, made(model, 1), judged_against=0) is None
    assert champion.read(s3, bucket, model) is None
    promoted(bucket, made(model, 2))


def test_a_promotion_that_was_overtaken_is_not_crowned(bucket: str, model: str) -> None:
    s3 = client("s3")
    assert close_fence(s3, bucket, made(model, 1), judged_against=0) is None
    assert close_fence(s3, bucket, made(model, 2), judged_against=0) is None
    assert crown(s3, bucket, made(model, 1)) == "Generation 2 came while generation 1 was promoted."
    assert champion.read(s3, bucket, model) is None


@pytest.mark.parametrize("seed", range(5))
def test_of_promotions_at_the_same_moment_the_newest_that_got_in_wins(bucket: str, model: str, seed: int) -> None:
    s3, said = client("s3"), dict[int, str | None]()

    def promote(generation: int) -> None:
        said[generation] = close_fence(s3, bucket, made(model, generation), 0) or crown(
            s3, bucket, made(model, generation)
        )

    threads = [threading.Thread(target=promote, args=(1 + (n + seed) % 4,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner = champion.read(s3, bucket, model)
    assert winner is not None
    assert winner.generation == max(generation for generation, no in said.items() if no is None)


def test_a_conditional_write_loses_to_a_write_it_has_not_seen(bucket: str, model: str) -> None:
    s3, uri = client("s3"), names.champion(bucket, model)
    assert replace_document(s3, uri, {"n": 1}, None)
    assert not replace_document(s3, uri, {"n": 2}, None)
    seen = read_document(s3, uri)
    assert replace_document(s3, uri, {"n": 3}, seen)
    assert not replace_document(s3, uri, {"n": 4}, seen)
