use dormouse_core::{Activity, Failure, Workflow};

async fn charge(_: Activity, cents: u32) -> Result<u32, Failure> {
    Ok(cents)
}

async fn order(cx: Workflow, cents: u32) -> Result<u32, Failure> {
    cx.local_activity(charge, cents).await
}

fn main() {
    drop(order);
}
