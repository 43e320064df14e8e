"""A worker for Dormouse activities in plain boto3, for AWS Lambda behind an SQS task queue. README.md beside it says
what travels, and why each step is as it is. Environment: DORMOUSE_TABLE, DORMOUSE_BUCKET, DORMOUSE_RUN_QUEUE_URL,
DORMOUSE_TASK_QUEUES (JSON: name -> URL)."""
import json, logging, math, os, re, signal, time, uuid
from urllib.parse import quote

import boto3

dynamodb, sqs, s3 = boto3.client("dynamodb"), boto3.client("sqs"), boto3.client("s3")
SKEW_MS = 5_000  # clocks differ: a claim is believed in for this much longer than its limits
LONGEST_DELAY = 900  # seconds; SQS delays no longer. What is early then is delayed once more.
LARGEST_RESULT = 200 * 1024
LARGEST_HEARTBEAT = 64 * 1024  # its details stand beside the last failure, in one item of the table

def no_number(name):
    raise ValueError(f"{name} is no JSON")

# Reads any JSON, and nothing else: numbers stay text, since Python refuses to read the longest.
STRICT, PLAIN = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=no_number), json.JSONDecoder()
GAP = re.compile(r"[ \t\n\r:,]*")  # between the names and values of an object

class JsonText:
    """A value as JSON text, byte for byte: as it came, or as it shall go out. May stand within other values."""
    def __init__(self, text):
        STRICT.decode(text)  # a ValueError, if it is no JSON
        self.text = text

    def value(self):
        return json.loads(self.text)

def takes_text(activity):
    """Decorates an activity that gets its input as `JsonText`."""
    activity.takes_text = True
    return activity

def text_of(value):
    """The JSON text of a value, with each `JsonText` in it as it is."""
    texts, mark = [], str(uuid.uuid4())
    def put(value):
        if not isinstance(value, JsonText):
            raise TypeError(f"a {type(value).__name__} is no JSON")
        texts.append(value.text)
        return mark
    first, *rest = json.dumps(value, default=put, allow_nan=False).split(f'"{mark}"')
    written = first + "".join(text + after for text, after in zip(texts, rest))
    return written.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")  # SQS carries no such characters

def fields_of(text, *kept):
    """The fields of a JSON object, by name; those to be kept are `JsonText`."""
    if not isinstance(STRICT.decode(text), dict):
        raise ValueError(f"no JSON object: {text[:200]}")
    fields, at = {}, GAP.match(text, text.index("{") + 1).end()
    while text[at] != "}":
        name, end = PLAIN.raw_decode(text, at)
        start = GAP.match(text, end).end()
        value, end = (STRICT if name in kept else PLAIN).raw_decode(text, start)
        fields[name] = JsonText(text[start:end]) if name in kept else value
        at = GAP.match(text, end).end()
    return fields

class NonRetryable(Exception): """No other attempt can mend it."""
class TimedOut(BaseException): """A limit passed. No `Exception`: code that catches those must not catch this."""
class Superseded(BaseException): """Another attempt took over."""

def now_ms():
    return int(time.time() * 1000)

def handler_of(activities):
    def handler(event, _context):
        failed = []
        for message in event["Records"]:
            try:
                again = int(message["attributes"]["ApproximateReceiveCount"]) > 1
                handle(activities, message["body"], again)
            except Exception:  # SQS delivers this one again, and in the end to its dead-letter queue
                logging.exception("message %s was not handled", message["messageId"])
                failed.append({"itemIdentifier": message["messageId"]})
        return {"batchItemFailures": failed}
    return handler

def handle(activities, body, again):
    task = fields_of(body, "input")
    if task.get("kind") == "stored":  # too large for the queue: the message is in the bucket
        stored = s3.get_object(Bucket=os.environ["DORMOUSE_BUCKET"], Key=task["key"])["Body"].read()
        task = fields_of(stored.decode(), "input")
    if (task.get("v"), task.get("kind")) != (1, "activity_task"):
        raise ValueError(f"no task of version 1: {body[:200]}")
    if now_ms() > task["not_after_ms"]:
        return  # the attempt record may be gone; the engine sends a new task if it still wants one
    attempt = Attempt(task, body)
    if now_ms() < task["not_before_ms"]:
        attempt.send_again(task["not_before_ms"])
    elif attempt.claim(again):
        try:
            attempt.run(activities)
        except Superseded:
            logging.warning("activity %s went on without attempt %d", attempt.key, attempt.number)

class Attempt:
    """The next attempt of a task; once it is claimed, the right to run the activity once."""

    def __init__(self, task, body):
        self.task, self.body, self.options, self.lost = task, body, task["options"], task["lost_attempts"]
        self.key = f"{task['run']['run_id']}:{task['activity_id']}"
        self.number, self.claim_id, self.version = self.lost + 1, str(uuid.uuid4()), 0
        # Of the last heartbeat, also of an earlier attempt: `JsonText`, or None.
        self.details = None
        self.last_failure, self.wanted = None, True
        self.started = self.written = now_ms()
        limit = self.options.get("schedule_to_close_ms")
        self.deadline = math.inf if limit is None else task["scheduled_at_ms"] + limit

    def claim(self, again):
        """Whether to run now. The first write expects no record: most often there is none, and nothing is read."""
        while found := self.swap(self.claimed()):
            version, record = found
            if record.get("cancel_requested") or record["state"] == "closed":
                return False
            if record["attempt"] > self.lost:  # attempts up to `lost` are over, whatever the record says
                if record["state"] == "claimed":
                    if record["lease_until_ms"] < now_ms():  # only the history ends a lease: tell it
                        limit = "heartbeat" if "heartbeat_ms" in self.options else "start_to_close"
                        told = {} if record.get("heartbeat") is None else {"last_heartbeat": record["heartbeat"]}
                        self.report("attempt_lost", record["attempt"], timeout=limit, **told)
                    elif again:  # its worker's own message, it seems: look when the lease is over. Other copies just end
                        self.send_again(record["lease_until_ms"] + 1)
                    return False
                if now_ms() < record["retry_at_ms"]:
                    self.send_again(record["retry_at_ms"])
                    return False
            self.number, self.version = max(record["attempt"], self.lost) + 1, version
            self.details, self.last_failure = record.get("heartbeat"), record.get("last_failure")
        return True

    def run(self, activities):
        try:
            result = self.within_limits(activities)
        except (Exception, TimedOut) as error:
            failure = self.failure(error)
            verdict = self.verdict(failure)
            if isinstance(verdict, str):
                return self.report("activity_failed", self.number, failure=failure, retry_state=verdict)
            self.last_failure = failure
            if self.write({"state": "waiting", "retry_at_ms": verdict}):
                self.send_again(verdict)
        else:
            self.report("activity_completed", self.number, result=result)

    def within_limits(self, activities):
        """The activity's result. A signal interrupts it when its time is up, which works in the main thread only."""
        end = self.started + self.options.get("start_to_close_ms", math.inf)
        def ring(*_):
            raise TimedOut("start_to_close" if end <= self.deadline else "schedule_to_close")
        former = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, max(min(end, self.deadline) - now_ms(), 1) / 1000)
        try:
            if self.task["activity_type"] not in activities:
                raise LookupError(f"this worker has no activity {self.task['activity_type']!r}")
            activity, given = activities[self.task["activity_type"]], self.task["input"]
            text = text_of(activity(given if hasattr(activity, "takes_text") else given.value(), self))
            if (length := len(text.encode())) > LARGEST_RESULT:
                raise NonRetryable(f"the result is {length} bytes of JSON; store it, and return a reference")
            return JsonText(text)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)

    def failure(self, error):
        if isinstance(error, TimedOut):
            told = {} if self.details is None else {"last_heartbeat": self.details}
            return {"message": "a time limit passed", "kind": "timeout", "timeout": str(error), **told}
        name, message = type(error).__name__, str(error)[:10_000].encode(errors="replace").decode()
        return {"message": message or name, "kind": "application", "type": name,
                "non_retryable": isinstance(error, NonRetryable)}

    def verdict(self, failure):
        """When the next attempt may begin, in milliseconds; or why there is none."""
        retry = self.options["retry"]
        if failure.get("non_retryable") or failure.get("type") in retry["non_retryable_types"]:
            return "non_retryable_failure"
        if failure.get("timeout") == "schedule_to_close":
            return "timeout"
        if 0 < retry["maximum_attempts"] <= self.number:
            return "maximum_attempts_reached"
        try:
            delay = retry["initial_interval_ms"] * retry["backoff_coefficient"] ** (self.number - 1)
        except OverflowError:
            delay = math.inf
        at = now_ms() + int(min(delay, retry["maximum_interval_ms"]))
        return "timeout" if at >= self.deadline else at

    def heartbeat(self, details=None):
        """A sign of life that extends the lease: written at most once per 0.8 of the limit, or 30 s without one."""
        text = text_of(details)
        if (length := len(text.encode())) > LARGEST_HEARTBEAT:
            raise NonRetryable(f"the details of a heartbeat are {length} bytes of JSON; store them, and give a reference")
        self.details = None if details is None else JsonText(text)
        if now_ms() - self.written < min(0.8 * self.options.get("heartbeat_ms", 37_500), 60_000):
            return self.wanted
        self.written = now_ms()
        return self.write(self.claimed())

    def claimed(self):
        """The state of a claim that is made or renewed now, with its lease."""
        ends = [self.deadline, self.started + self.options.get("start_to_close_ms", math.inf),
                now_ms() + self.options.get("heartbeat_ms", math.inf)]
        return {"state": "claimed", "claim": self.claim_id, "epoch": 0, "lease_until_ms": min(ends) + SKEW_MS}

    def write(self, state):
        """Replaces our own record. False when the workflow no longer wants the activity: then nothing follows it."""
        while found := self.swap({"state": "closed"} if state["state"] == "waiting" and not self.wanted else state):
            self.version, record = found
            if record.get("claim") != self.claim_id:
                raise Superseded
            self.wanted = self.wanted and not record.get("cancel_requested")
        return self.wanted

    def swap(self, state):
        """Writes the record if its version is the one that we know. None when done, else what stands there instead."""
        extra = {"last_failure": self.last_failure, "heartbeat": self.details,
                 "cancel_requested": not self.wanted or None}
        record = {"attempt": self.number, **state, **{key: value for key, value in extra.items() if value is not None}}
        run, text = self.task["run"], text_of(record)
        ids = [quote(run[id], safe="").replace(".", "%2E").replace("~", "%7E") for id in ("namespace", "workflow_id")]
        item = {"p": {"S": f"attempt#{ids[0]}/{ids[1]}/{run['ordinal']:020}"},
                "s": {"S": f"{int(self.task['activity_id']):020}"},
                "version": {"N": str(self.version + 1)}, "record": {"S": text}}
        condition = {"ConditionExpression": "attribute_not_exists(p)"} if self.version == 0 else {
            "ConditionExpression": "#version = :version", "ExpressionAttributeNames": {"#version": "version"},
            "ExpressionAttributeValues": {":version": {"N": str(self.version)}}}
        try:
            dynamodb.put_item(TableName=os.environ["DORMOUSE_TABLE"], Item=item,
                              ReturnValuesOnConditionCheckFailure="ALL_OLD", **condition)
        except dynamodb.exceptions.ConditionalCheckFailedException as conflict:
            found = conflict.response["Item"]
            if found["record"]["S"] != text:  # the same text is ours: it landed, and boto3 sent it once more
                return int(found["version"]["N"]), fields_of(found["record"]["S"], "heartbeat", "last_failure")
        self.version += 1
        return None

    def send_again(self, at_ms):
        """The message as it came, byte for byte. Whether it is due then, the attempt record knows."""
        delay = min(max(math.ceil((at_ms - now_ms()) / 1000), 0), LONGEST_DELAY)
        queue = json.loads(os.environ["DORMOUSE_TASK_QUEUES"])[self.options.get("task_queue", "default")]
        sqs.send_message(QueueUrl=queue, MessageBody=self.body, DelaySeconds=delay)

    def report(self, kind, number, **fields):
        """Tells the run. Messages of one workflow form a group, and are handled one after another."""
        body = {"v": 1, "kind": kind, "run": self.task["run"], "activity_id": self.task["activity_id"],
                "attempt": number, **fields}
        sqs.send_message(QueueUrl=os.environ["DORMOUSE_RUN_QUEUE_URL"], MessageBody=text_of(body),
                         MessageGroupId=self.task["reply_group"], MessageDeduplicationId=str(uuid.uuid4()))
