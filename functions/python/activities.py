"""Your activities. A function takes the input, as JSON gives it, and an attempt; what it returns must be JSON.

An exception means "try again, as the workflow's retry policy says"; `NonRetryable`, or a type that the policy names,
means that no other attempt can mend it.
"""
import hashlib

from worker import NonRetryable, handler_of, takes_text


def resize(image, attempt):
    """`attempt.key` is the same for each attempt of this activity and for no other: give it to whoever must not act
    twice. In long work call `attempt.heartbeat(details)`: False means that the workflow no longer wants it."""
    if image["width"] <= 0:
        raise NonRetryable("the width must be positive")
    return {"name": image["name"], "width": image["width"] // 2}


@takes_text
def sign(order, attempt):
    """Decoded and encoded again, JSON is no longer the same bytes: `1.10` is `1.1`, and a long number another one. Where
    that matters, `order.text` is the text as it came; in what an activity returns or gives to `attempt.heartbeat`,
    `order` (or any `JsonText("...")`) goes out as that text. So comes `attempt.details`, what an earlier attempt gave to
    `heartbeat`; None, if nothing. `order.value()` is what Python makes of it."""
    return {"order": order, "sha256": hashlib.sha256(order.text.encode()).hexdigest()}


# What AWS Lambda calls: `activities.handler`. The names are those of the workflow's `RemoteActivity::new("resize")`.
handler = handler_of({"resize": resize, "sign": sign})
