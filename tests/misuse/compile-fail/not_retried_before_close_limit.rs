use std::time::Duration;

use dormouse_core::{Activity, Failure, RetryPolicy, Workflow};

async fn charge(_: Activity, cents: u32) -> Result<u32, Failure> {
    Ok(cents)
}

async fn order(cx: Workflow, cents: u32) -> Result<u32, Failure> {
    cx.activity(charge, &cents).retry(RetryPolicy::max_attempts(3)).start_to_close(Duration::from_secs(1)).await
}

fn main() {
    drop(order);
}
