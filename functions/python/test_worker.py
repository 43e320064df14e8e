"""The worker against a table and queues in memory: `python3 -m unittest`. Needs neither boto3 nor a network.

fixtures.json holds situations and what the engine's own worker makes of them; this one must do the same."""
import io, json, logging, math, os, pathlib, sys, time, types, unittest
from unittest import mock


class Conflict(Exception):
    def __init__(self, item):
        self.response = {"Item": item}


class Table:
    """One item at most per key, and the two conditions that the contract knows."""
    exceptions = types.SimpleNamespace(ConditionalCheckFailedException=Conflict)

    def __init__(self):
        self.items, self.between, self.lose_answer = {}, None, False

    def put_item(self, TableName, Item, ConditionExpression, ReturnValuesOnConditionCheckFailure, **expression):
        if between := self.between:
            self.between = None
            between()
        assert (TableName, ReturnValuesOnConditionCheckFailure) == ("table", "ALL_OLD")
        key = (Item["p"]["S"], Item["s"]["S"])
        there = self.items.get(key)
        if ConditionExpression == "attribute_not_exists(p)":
            holds = there is None
        else:
            assert ConditionExpression == "#version = :version"
            assert expression["ExpressionAttributeNames"] == {"#version": "version"}
            expected = expression["ExpressionAttributeValues"][":version"]
            holds = there is not None and there["version"] == expected
            assert int(Item["version"]["N"]) == int(expected["N"]) + 1
        if not holds:
            raise Conflict(there)
        self.items[key] = Item
        if self.lose_answer:  # the SDK sends it again, as it was
            self.lose_answer = False
            self.put_item(TableName, Item, ConditionExpression, ReturnValuesOnConditionCheckFailure, **expression)

    def only(self):
        (item,) = self.items.values()
        return json.loads(item["record"]["S"])


class Queues:
    def __init__(self):
        self.sent, self.broken = [], False

    def send_message(self, **message):
        if self.broken:
            raise OSError("the queue does not answer")
        self.sent.append(message)


table, queues, bucket = Table(), Queues(), {}
s3 = types.SimpleNamespace(get_object=lambda Bucket, Key: {"Body": io.BytesIO(bucket[Bucket, Key])})
clients = {"dynamodb": table, "sqs": queues, "s3": s3}
sys.modules["boto3"] = types.SimpleNamespace(client=clients.__getitem__)
import activities, worker  # noqa: E402  (boto3 had to be there first)

FIXTURES = json.loads((pathlib.Path(__file__).parent / "fixtures.json").read_text())
logging.disable()  # what is wrong on purpose below need not be read
ENVIRONMENT = {
    "DORMOUSE_TABLE": "table", "DORMOUSE_BUCKET": "bucket", "DORMOUSE_RUN_QUEUE_URL": "runs",
    "DORMOUSE_TASK_QUEUES": '{"default": "default-url", "python": "python-url"}',
}


def play(answer, _attempt):
    if "give" in answer:
        return answer["give"]
    failure = answer["raise"]
    kind = type(failure["type"], (worker.NonRetryable if failure["final"] else Exception,), {})
    raise kind(failure["message"])


def record(message_id, body, times=1):
    return {"messageId": message_id, "body": body, "attributes": {"ApproximateReceiveCount": str(times)}}


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        table.__init__()
        queues.__init__()
        bucket.clear()
        self.clock = FIXTURES[0]["now_ms"]
        for patch in (mock.patch.dict(os.environ, ENVIRONMENT), mock.patch.object(worker, "now_ms", lambda: self.clock)):
            patch.start()
            self.addCleanup(patch.stop)

    def deliver(self, body, code=play, times=1):
        """Delivers one message as often as that; whether it was handled."""
        answer = worker.handler_of({"work": code})({"Records": [record("m", body, times)]}, None)
        self.assertIn(answer, ({"batchItemFailures": []}, {"batchItemFailures": [{"itemIdentifier": "m"}]}))
        return not answer["batchItemFailures"]

    def task(self, **options):
        """The first fixture's task with other options, as the queue brings it."""
        task = json.loads(FIXTURES[0]["body"])
        task["options"].update(options)
        return task

    def told(self):
        return [json.loads(message["MessageBody"]) for message in queues.sent if message["QueueUrl"] == "runs"]

    def again(self):
        return [message for message in queues.sent if message["QueueUrl"] != "runs"]


class Contract(Case):
    def test_every_fixture(self):
        self.assertGreater(len(FIXTURES), 20)
        for fixture in FIXTURES:
            with self.subTest(fixture["name"]):
                self.setUp()
                self.clock, found = fixture["now_ms"], fixture["found"]
                if found:
                    record = {"version": {"N": "7"}, "record": {"S": json.dumps(found)}}
                    table.items[fixture["p"], fixture["s"]] = record
                self.assertTrue(self.deliver(fixture["body"], times=fixture["deliveries"]))

                records = {key: json.loads(item["record"]["S"]) for key, item in table.items.items()}
                for record in records.values():
                    if record.get("claim") != (found or {}).get("claim") and "claim" in record:
                        record["claim"] = "CLAIM"
                after = fixture["after"]
                self.assertEqual(records, {(fixture["p"], fixture["s"]): after} if after else {})
                self.assertEqual(self.told(), fixture["told"])
                delays = [min(math.ceil((at - self.clock) / 1000), 900) for at in fixture["again_at_ms"]]
                self.assertEqual(
                    self.again(),
                    [{"QueueUrl": "python-url", "MessageBody": fixture["body"], "DelaySeconds": delay} for delay in delays],
                )

    def test_outcomes_go_to_the_run_s_group_and_are_never_taken_for_repeats(self):
        for _ in range(2):
            table.items.clear()
            self.deliver(json.dumps(self.task()))
        group = self.task()["reply_group"]
        self.assertEqual([message["MessageGroupId"] for message in queues.sent], [group, group])
        self.assertEqual(len({message["MessageDeduplicationId"] for message in queues.sent}), 2)

    def test_what_is_no_task_is_a_dead_letter(self):
        for body in ("", "[]", '{"v": 2, "kind": "activity_task"}', '{"v": 1, "kind": "sweep"}'):
            self.assertFalse(self.deliver(body), body)
        self.assertEqual((table.items, queues.sent), ({}, []))

    def test_one_bad_message_holds_up_no_other(self):
        records = [record("bad", "{"), record("good", json.dumps(self.task()))]
        answer = worker.handler_of({"work": play})({"Records": records}, None)
        self.assertEqual(answer, {"batchItemFailures": [{"itemIdentifier": "bad"}]})
        self.assertEqual(len(self.told()), 1)

    def test_a_task_that_is_too_large_for_the_queue_is_in_the_bucket(self):
        bucket["bucket", "messages/1"] = json.dumps(self.task()).encode()
        self.deliver('{"v": 1, "kind": "stored", "key": "messages/1", "bytes": 1}')
        self.assertEqual(self.told()[0]["kind"], "activity_completed")

    def test_a_task_before_its_time_is_delayed(self):
        body = json.dumps(self.task() | {"not_before_ms": self.clock + 10_001})
        self.deliver(body)
        self.assertEqual(self.again(), [{"QueueUrl": "python-url", "MessageBody": body, "DelaySeconds": 11}])
        self.assertEqual(table.items, {})

    def test_results_that_cannot_travel_fail_for_good_or_are_tried_again(self):
        self.deliver(json.dumps(self.task()), lambda *_: "x" * 300_000)
        self.assertEqual(self.told()[0]["retry_state"], "non_retryable_failure")
        table.items.clear()
        self.deliver(json.dumps(self.task()), lambda *_: math.nan)
        self.assertEqual(table.only()["last_failure"]["type"], "ValueError")

    def test_details_of_a_heartbeat_are_bounded(self):
        self.deliver(json.dumps(self.task()), lambda _, attempt: attempt.heartbeat("x" * 70_000))
        self.assertEqual(self.told()[0]["retry_state"], "non_retryable_failure")
        self.assertNotIn("heartbeat", table.only())

    def test_an_activity_that_is_not_here_is_tried_again(self):
        self.deliver(json.dumps(self.task() | {"activity_type": "unknown"}))
        self.assertEqual((table.only()["state"], table.only()["last_failure"]["type"]), ("waiting", "LookupError"))


# What Python would write otherwise, or cannot read: digits, keys twice and in another order, escapes, half a pair, space.
ODD = '{"b": 1.10, "a":\t[1E+2,\n12345678901234567890123.0], "a": "\\u00e9é\\/\\ud800", "c" :-%s}' % ("7" * 5_000)


class Texts(Case):
    def body(self, text, **changes):
        """The first fixture's task with this text as its input, and space wherever there may be some."""
        task = {name: json.dumps(value) for name, value in (self.task() | changes).items()} | {"input": text}
        return " { " + " ,\r\n".join(f"{json.dumps(name)}\t: {value}" for name, value in task.items()) + " } "

    def test_a_text_comes_and_goes_byte_for_byte(self):
        deep = "[" * 64 + "]" * 64
        for text in (ODD, "-0", '""', "null", "[ ]", "{ }", deep, '"},{\\"input\\": 1"', '"\U0001F42D\u2028"'):
            for stored in (False, True):
                self.setUp()
                body = self.body(text)
                if stored:
                    bucket["bucket", "messages/1"] = body.encode()
                    body = '{"v": 1, "kind": "stored", "key": "messages/1", "bytes": 1}'
                self.assertTrue(self.deliver(body, worker.takes_text(lambda given, _: given)))
                (sent,) = queues.sent
                self.assertTrue(sent["MessageBody"].endswith(f', "result": {text}' + "}"), text)

    def test_a_text_may_stand_within_a_value(self):
        amounts = [worker.JsonText("1.10"), {"b": worker.JsonText('{"x":1,"x":2}')}, "1.10"]
        self.deliver(self.body("null"), lambda *_: amounts)
        self.assertIn('"result": [1.10, {"b": {"x":1,"x":2}}, "1.10"]', queues.sent[0]["MessageBody"])

    def test_a_text_is_decoded_when_somebody_asks(self):
        self.assertEqual(worker.JsonText('{"a": [1.10, "\\u00e9"]}').value(), {"a": [1.1, "é"]})

    def test_what_is_no_json_is_no_text(self):
        for text in ("", "NaN", "[-Infinity]", "{'a': 1}", '"\n"', "1 2", "[1,]", "\ufeff1", "01"):
            with self.assertRaises(ValueError, msg=text):
                worker.JsonText(text)

    def test_texts_are_bounded_in_bytes(self):
        for letter, fits in (("x", True), ("é", False)):
            table.items.clear()
            self.deliver(self.body("null"), lambda *_: worker.JsonText(f'"{letter * 150_000}"'))
            self.assertEqual(self.told()[-1]["kind"] == "activity_completed", fits)
        table.items.clear()
        self.deliver(self.body("null"), lambda _, attempt: attempt.heartbeat(worker.JsonText(f'"{"é" * 40_000}"')))
        self.assertEqual(self.told()[-1]["retry_state"], "non_retryable_failure")

    def test_what_a_queue_cannot_carry_travels_as_an_escape(self):
        self.deliver(self.body('"\uffff"'), worker.takes_text(lambda given, _: given))
        self.assertIn('"result": "\\uffff"', queues.sent[0]["MessageBody"])

    def test_details_and_failures_pass_from_record_to_record(self):
        found = {"attempt": 1, "state": "waiting", "retry_at_ms": 0, "last_failure": 0, "heartbeat": 0}
        failure = '{"message": "no", "details": %s}' % ODD
        text = json.dumps(found)[:-len('"last_failure": 0, "heartbeat": 0}')]
        text += f'"last_failure": {failure}, "heartbeat": {ODD}' + "}"
        key, seen = (FIXTURES[0]["p"], FIXTURES[0]["s"]), []
        table.items[key] = {"version": {"N": "7"}, "record": {"S": text}}
        def look(_, attempt):
            record = table.items[key]["record"]["S"]
            self.assertIn(f'"last_failure": {failure}, "heartbeat": {ODD}', record)
            seen.append(attempt.details.text)
            attempt.heartbeat(worker.JsonText("[1.10 ]"))
            raise OSError("once more")
        self.deliver(self.body("null", lost_attempts=0), look)
        self.assertEqual(seen, [ODD])
        self.assertIn('"heartbeat": [1.10 ]', table.items[key]["record"]["S"])

    def test_details_of_a_lost_attempt_are_told_as_they_are(self):
        record = '{"attempt": 1, "state": "claimed", "claim": "c", "epoch": 0, "lease_until_ms": 1, "heartbeat": %s}' % ODD
        table.items[FIXTURES[0]["p"], FIXTURES[0]["s"]] = {"version": {"N": "7"}, "record": {"S": record}}
        self.deliver(self.body("null", lost_attempts=0))
        self.assertTrue(queues.sent[0]["MessageBody"].endswith(f', "last_heartbeat": {ODD}' + "}"))

    def test_an_input_that_python_cannot_read_fails_the_attempt_alone(self):
        self.assertTrue(self.deliver(self.body("7" * 5_000)))
        self.assertEqual(table.only()["last_failure"]["type"], "ValueError")

    def test_details_that_are_no_json_fail_the_attempt_and_reach_no_record(self):
        self.deliver(self.body("null"), lambda _, attempt: attempt.heartbeat(math.nan))
        self.assertNotIn("NaN", [item["record"]["S"] for item in table.items.values()][0])
        self.assertEqual(table.only()["last_failure"]["type"], "ValueError")

    def test_details_are_what_they_were_when_they_were_given(self):
        def change(_, attempt):
            attempt.heartbeat(details := {"done": 1})
            details["done"] = object()
            raise OSError("no")
        self.deliver(self.body("null"), change)
        self.assertEqual(table.only()["heartbeat"], {"done": 1})

    def test_the_message_of_a_failure_is_text_for_everybody(self):
        def fail(*_):
            raise OSError("no file \udcff")
        self.deliver(self.body("null"), fail)
        self.assertEqual(table.only()["last_failure"]["message"], "no file ?")


class Conflicts(Case):
    def test_a_claim_whose_answer_was_lost_is_known_again(self):
        ran = []
        table.lose_answer = True
        self.deliver(json.dumps(self.task()), lambda *_: ran.append(1))
        self.assertEqual((ran, len(self.told())), ([1], 1))

    def test_a_second_delivery_runs_nothing(self):
        ran, body = [], json.dumps(self.task())
        for _ in range(2):
            self.assertTrue(self.deliver(body, lambda *_: ran.append(1)))
        self.assertEqual((ran, len(self.told())), ([1], 1))

    def test_an_outcome_that_was_not_sent_is_an_attempt_that_is_lost(self):
        body = json.dumps(self.task())
        queues.broken = True
        self.assertFalse(self.deliver(body))
        queues.broken = False
        self.assertTrue(self.deliver(body, times=2), "the lease lasts: it comes again when that is over")
        self.assertEqual([sent["DelaySeconds"] for sent in queues.sent], [66])
        queues.sent.clear()
        self.clock += 65_001
        self.deliver(json.dumps(self.task() | {"not_after_ms": self.clock}))
        self.assertEqual([(told["kind"], told["attempt"]) for told in self.told()], [("attempt_lost", 1)])

    def cancel(self, **changes):
        """The run marks the record, as the engine does."""
        (key, item), = table.items.items()
        record = json.loads(item["record"]["S"]) | changes
        version = {"N": str(int(item["version"]["N"]) + 1)}
        table.items[key] = item | {"version": version, "record": {"S": json.dumps(record)}}

    def test_what_is_not_wanted_any_more_is_not_tried_again(self):
        def fail(*_):
            table.between = lambda: self.cancel(cancel_requested=True)
            raise OSError("no")
        self.deliver(json.dumps(self.task()), fail)
        self.assertEqual((table.only()["state"], table.only()["cancel_requested"]), ("closed", True))
        self.assertEqual(queues.sent, [])

    def test_another_attempt_that_took_over_is_left_alone(self):
        def fail(*_):
            table.between = lambda: self.cancel(claim="another", attempt=2)
            raise OSError("no")
        self.deliver(json.dumps(self.task()), fail)
        self.assertEqual((table.only()["claim"], table.only()["attempt"], queues.sent), ("another", 2, []))

    def test_a_heartbeat_extends_the_lease_and_learns_that_nobody_waits(self):
        seen = []
        def work(_, attempt):
            seen.append(attempt.heartbeat(1))
            self.assertNotIn("heartbeat", table.only(), "not yet worth a write")
            self.clock += 900
            seen.append(attempt.heartbeat(2))
            seen.append((table.only()["heartbeat"], table.only()["lease_until_ms"] - self.clock))
            self.cancel(cancel_requested=True)
            self.clock += 900
            seen.append(attempt.heartbeat(3))
            self.clock += 900
            seen.append(attempt.heartbeat(4))
            raise OSError("stopped")
        self.deliver(json.dumps(self.task(heartbeat_ms=1_000)), work)
        self.assertEqual(seen, [True, True, (2, 6_000), False, False])
        self.assertEqual((table.only()["state"], table.only()["cancel_requested"], queues.sent), ("closed", True, []))

    def test_an_attempt_that_takes_too_long_is_interrupted(self):
        def sleep(_, attempt):
            attempt.heartbeat("half")
            try:
                time.sleep(30)
            except Exception:
                self.fail("no Exception: user code must not swallow it by accident")
        began = time.monotonic()
        self.deliver(json.dumps(self.task(start_to_close_ms=50)), sleep)
        self.assertLess(time.monotonic() - began, 20)
        failure = table.only()["last_failure"]
        self.assertEqual((failure["timeout"], failure["last_heartbeat"]), ("start_to_close", "half"))
        self.assertEqual(len(self.again()), 1)


class Sample(Case):
    def test_resize(self):
        task = self.task() | {"activity_type": "resize", "input": {"name": "a.png", "width": 8}}
        activities.handler({"Records": [record("m", json.dumps(task))]}, None)
        self.assertEqual(self.told()[0]["result"], {"name": "a.png", "width": 4})

    def test_sign(self):
        task = json.dumps(self.task() | {"activity_type": "sign", "input": 0}).replace('"input": 0', '"input": [1.10 ]')
        activities.handler({"Records": [record("m", task)]}, None)
        hashed = "b3ff39def18f445313013443935a729018a6286c72a79e3c07e0d7dfd5a44f88"
        self.assertIn('"result": {"order": [1.10 ], "sha256": "' + hashed, queues.sent[0]["MessageBody"])


if __name__ == "__main__":
    unittest.main()
