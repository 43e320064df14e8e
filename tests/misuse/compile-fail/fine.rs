//! What the others get wrong, done right.

use std::time::Duration;

use dormouse_core::{Activity, ActivityOptions, App, Failure, RemoteActivity, RetryPolicy, Signal, Workflow};

const PATIENT: ActivityOptions = ActivityOptions::start_to_close(Duration::from_secs(60))
    .retry(RetryPolicy::max_attempts(5).backoff_coefficient(1.0));
const PYTHON: ActivityOptions = PATIENT.task_queue("python");
const RESIZE: RemoteActivity<u32, u32> = RemoteActivity::new("resize");
const APPROVAL: Signal<bool> = Signal::new("approval");

async fn charge(_: Activity, cents: u32) -> Result<u32, Failure> {
    Ok(cents)
}

async fn order(cx: Workflow, cents: u32) -> Result<bool, Failure> {
    cx.activity(charge, &cents).options(PATIENT).await?;
    cx.activity(charge, &cents).schedule_to_close(Duration::from_secs(5)).start().await?;
    cx.activity(RESIZE, &cents).options(PYTHON).await?;
    Ok(cx.signal(APPROVAL).await?)
}

fn main() {
    let app = App::new()
        .workflow("order", order)
        .workflow("short", |_: Workflow, n: u32| async move { Ok(n) })
        .activity("charge", charge)
        .activity("closure", |_: Activity, n: u32| async move { Ok(n + 1) });
    app.check().unwrap();
}
