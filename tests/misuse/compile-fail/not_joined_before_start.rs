use std::time::Duration;

use dormouse_core::{Activity, ActivityOptions, Failure, Workflow};
use futures::future::join_all;

const PATIENT: ActivityOptions = ActivityOptions::start_to_close(Duration::from_secs(60));

async fn charge(_: Activity, cents: u32) -> Result<u32, Failure> {
    Ok(cents)
}

async fn orders(cx: Workflow, all: Vec<u32>) -> Result<usize, Failure> {
    let calls = all.iter().map(|cents| cx.activity(charge, cents).options(PATIENT));
    let locals = all.iter().map(|cents| cx.local_activity(charge, cents));
    Ok(join_all(calls).await.len() + join_all(locals).await.len())
}

fn main() {
    drop(orders);
}
