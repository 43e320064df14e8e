use dormouse_core::{Activity, Failure, Workflow};

async fn charge(_: Activity, cents: u32) -> Result<u32, Failure> {
    Ok(cents)
}

async fn order(cx: Workflow, name: String) -> Result<u32, Failure> {
    cx.activity(charge, &name).start_to_close(std::time::Duration::from_secs(1)).await
}

fn main() {
    drop(order);
}
