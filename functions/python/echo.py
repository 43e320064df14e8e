"""Plays tasks that are found waiting with details of an earlier heartbeat. The activity gives its input back as it came;
the details stay as they are. Reads {"p": ..., "s": ..., "found": [[message, record], ...]} and writes, for each, the record
after the claim and what the run is told. Needs neither boto3 nor a network."""
import json, os, sys

import test_worker, worker


@worker.takes_text
def echo(given, _attempt):
    return given


def play(key, body, record):
    test_worker.queues.sent.clear()
    test_worker.table.items[key] = {"version": {"N": "7"}, "record": {"S": record}}
    answer = worker.handler_of({"echo": echo})({"Records": [test_worker.record("m", body)]}, None)
    assert answer == {"batchItemFailures": []}, body
    (told,) = test_worker.queues.sent
    return test_worker.table.items[key]["record"]["S"], told["MessageBody"]


os.environ.update(test_worker.ENVIRONMENT)
given = json.load(sys.stdin.buffer)
json.dump([play((given["p"], given["s"]), *found) for found in given["found"]], sys.stdout)
