use std::time::Duration;

use dormouse_core::{Activity, Failure, Workflow, join};

async fn charge(_: Activity, cents: u32) -> Result<u32, Failure> {
    Ok(cents)
}

async fn both(cx: Workflow, cents: u32) -> Result<u32, Failure> {
    let (first, second) = join!(cx.activity(charge, &cents), cx.sleep(Duration::from_secs(1)));
    second?;
    first
}

async fn in_time(cx: Workflow, cents: u32) -> Result<Option<u32>, Failure> {
    cx.timeout(Duration::from_secs(1), cx.activity(charge, &cents)).await
}

fn main() {
    drop((both, in_time));
}
