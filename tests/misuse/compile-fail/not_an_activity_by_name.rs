use std::time::Duration;

use dormouse_core::{Failure, Workflow};

async fn order(cx: Workflow, cents: u32) -> Result<u32, Failure> {
    cx.activity("charge", &cents).start_to_close(Duration::from_secs(1)).await
}

fn main() {
    drop(order);
}
