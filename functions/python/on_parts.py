"""The worker's fixtures once more, with boto3, on real parts: DynamoDB's own conditions and SQS's own queues.

    AWS_ENDPOINT_URL=http://127.0.0.1:4566 AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test \
        python3 on_parts.py

Makes a table and queues of its own, and takes them away again. Not for an account where that costs sleep."""
import json, os, pathlib, uuid

import boto3
import worker

FIXTURES = json.loads((pathlib.Path(__file__).parent / "fixtures.json").read_text())


def play(answer, _attempt):
    if "give" in answer:
        return answer["give"]
    failure = answer["raise"]
    raise type(failure["type"], (worker.NonRetryable if failure["final"] else Exception,), {})(failure["message"])


def received(url):
    messages = []
    while batch := worker.sqs.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1, AttributeNames=["MessageGroupId"]
    ).get("Messages"):
        for message in batch:
            worker.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        messages += batch
    return messages


def check(fixture, table, runs):
    key, found = {"p": {"S": fixture["p"]}, "s": {"S": fixture["s"]}}, fixture["found"]
    worker.dynamodb.delete_item(TableName=table, Key=key)
    if found:
        record = {"version": {"N": "7"}, "record": {"S": json.dumps(found)}}
        worker.dynamodb.put_item(TableName=table, Item=key | record)
    delays, send = [], worker.Attempt.send_again
    worker.Attempt.send_again = lambda attempt, at: delays.append(at)  # delays are SQS's business
    worker.now_ms = lambda: fixture["now_ms"]
    attributes = {"ApproximateReceiveCount": str(fixture["deliveries"])}
    records = [{"messageId": "m", "body": fixture["body"], "attributes": attributes}]
    answer = worker.handler_of({"work": play})({"Records": records}, None)
    worker.Attempt.send_again = send
    assert answer == {"batchItemFailures": []}, answer
    item = worker.dynamodb.get_item(TableName=table, Key=key, ConsistentRead=True).get("Item")
    after = item and json.loads(item["record"]["S"])
    if after and "claim" in after and after["claim"] != (found or {}).get("claim"):
        after["claim"] = "CLAIM"
    messages = received(runs)
    told = [json.loads(message["Body"]) for message in messages]
    groups = {message["Attributes"]["MessageGroupId"] for message in messages}
    assert (after, told, delays) == (fixture["after"], fixture["told"], fixture["again_at_ms"]), (after, told, delays)
    assert groups <= {json.loads(fixture["body"])["reply_group"]}, groups


def main():
    name = f"dormouse-python-{uuid.uuid4()}"
    worker.dynamodb.create_table(
        TableName=name, BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in ("p", "s")],
        KeySchema=[{"AttributeName": "p", "KeyType": "HASH"}, {"AttributeName": "s", "KeyType": "RANGE"}],
    )
    worker.dynamodb.get_waiter("table_exists").wait(TableName=name)
    runs = worker.sqs.create_queue(QueueName=name + ".fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    tasks = worker.sqs.create_queue(QueueName=name)["QueueUrl"]
    try:
        os.environ |= {"DORMOUSE_TABLE": name, "DORMOUSE_BUCKET": name, "DORMOUSE_RUN_QUEUE_URL": runs,
                       "DORMOUSE_TASK_QUEUES": json.dumps({"python": tasks})}
        for fixture in FIXTURES:
            check(fixture, name, runs)
            print("ok", fixture["name"])
        # A delayed message comes, and not before.
        task = json.loads(FIXTURES[0]["body"])
        worker.Attempt(task, FIXTURES[0]["body"]).send_again(task["not_before_ms"])
        (message,) = received(tasks)
        assert message["Body"] == FIXTURES[0]["body"], "byte for byte"
        print("ok the message comes again as it was")
    finally:
        worker.dynamodb.delete_table(TableName=name)
        for url in (runs, tasks):
            worker.sqs.delete_queue(QueueUrl=url)


if __name__ == "__main__":
    main()
