"""Your activities. A function takes the input, as JSON gives it, and an attempt; what it returns must be JSON.

An exception means "try again, as the workflow's retry policy says"; `NonRetryable`, or a type that the policy names,
means that no other attempt can mend it.
"""
from worker import NonRetryable, handler_of


def resize(image, attempt):
    """`attempt.key` is the same for each attempt of this activity and for no other: give it to whoever must not act
    twice. In long work call `attempt.heartbeat(details)`: False means that the workflow no longer wants it."""
    if image["width"] <= 0:
        raise NonRetryable("the width must be positive")
    return {"name": image["name"], "width": image["width"] // 2}


# What AWS Lambda calls: `activities.handler`. The names are those of the workflow's `RemoteActivity::new("resize")`.
handler = handler_of({"resize": resize})
