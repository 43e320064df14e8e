use std::time::Duration;

use dormouse_core::{Failure, Workflow};

async fn order(cx: Workflow, _: ()) -> Result<(), Failure> {
    tokio::spawn(async move { cx.sleep(Duration::from_secs(1)).await.ok() });
    Ok(())
}

fn main() {
    drop(order);
}
