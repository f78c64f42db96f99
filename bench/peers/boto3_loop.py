"""Consumers as most are written with boto3: `single` deletes one by one, `batch` ten at once in eight threads."""

import json
import sys
from collections import Counter
from threading import Thread
from typing import TYPE_CHECKING

import boto3

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

routed: Counter[str] = Counter()


def route(body: str) -> None:
    routed[json.loads(body)["detail"]["object"]["key"].split("/")[1]] += 1


def consume(sqs: "SQSClient", queue: str, batch: bool) -> None:
    while True:
        answer = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=20)
        messages = answer.get("Messages", [])
        for message in messages:
            route(message["Body"])
            if not batch:
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        if batch and messages:
            entries = [{"Id": str(i), "ReceiptHandle": m["ReceiptHandle"]} for i, m in enumerate(messages)]
            sqs.delete_message_batch(QueueUrl=queue, Entries=entries)  # type: ignore[arg-type]


if __name__ == "__main__":
    how, url = sys.argv[1:]
    client = boto3.client("sqs")
    for _ in range(7 if how == "batch" else 0):
        Thread(target=consume, args=(client, url, True), daemon=True).start()
    consume(client, url, how == "batch")
