//! An application whose workflows misbehave when `ODDITIES=bad` is set, and are well otherwise: what happens to code
//! that loops, panics, waits for what nobody sends or no longer matches its history.

use std::process::ExitCode;
use std::time::Duration;

use dormouse::prelude::*;
use dormouse::{Activity, App, Failure, Workflow};
use functions::ledger::Ledger;

const GO: Signal<()> = Signal::new("go");
const LIMITS: ActivityOptions = ActivityOptions::start_to_close(Duration::from_mins(1));

fn main() -> ExitCode {
    let app = App::new()
        .workflow("steady", steady)
        .workflow("endless", endless)
        .workflow("blocked", blocked)
        .workflow("panicking", panicking)
        .workflow("diverging", diverging)
        .workflow("foreign", foreign)
        .workflow("tokio", on_tokio)
        .workflow("slow", slow)
        .workflow("stumbling", stumbling)
        .activity("note", note)
        .activity("other", other)
        .activity("takeLong", take_long)
        .activity("stumble", stumble)
        .provide(Ledger::from_env());
    dormouse::main(app)
}

fn bad() -> bool {
    std::env::var("ODDITIES").is_ok_and(|kind| kind == "bad")
}

/// What every one of them does when it is well.
async fn to_the_end(cx: &Workflow) -> Result<String, Failure> {
    cx.signal(GO).await?;
    cx.activity(note, &()).options(LIMITS).await?;
    Ok("well".into())
}

async fn steady(cx: Workflow, _: ()) -> Result<String, Failure> {
    cx.activity(note, &()).options(LIMITS).await?;
    to_the_end(&cx).await
}

async fn endless(cx: Workflow, _: ()) -> Result<String, Failure> {
    cx.activity(note, &()).options(LIMITS).await?;
    while bad() {
        std::thread::yield_now();
    }
    to_the_end(&cx).await
}

async fn blocked(cx: Workflow, _: ()) -> Result<String, Failure> {
    cx.activity(note, &()).options(LIMITS).await?;
    let (_nobody_sends, receiver) = std::sync::mpsc::channel::<()>();
    if bad() {
        receiver.recv()?;
    }
    to_the_end(&cx).await
}

async fn panicking(cx: Workflow, _: ()) -> Result<String, Failure> {
    cx.activity(note, &()).options(LIMITS).await?;
    assert!(!bad(), "three is not four");
    to_the_end(&cx).await
}

async fn diverging(cx: Workflow, _: ()) -> Result<String, Failure> {
    if bad() {
        cx.activity(other, &()).options(LIMITS).await?;
    } else {
        cx.activity(note, &()).options(LIMITS).await?;
    }
    to_the_end(&cx).await
}

async fn foreign(cx: Workflow, _: ()) -> Result<String, Failure> {
    cx.activity(note, &()).options(LIMITS).await?;
    if bad() {
        std::future::pending::<()>().await;
    }
    to_the_end(&cx).await
}

async fn on_tokio(cx: Workflow, _: ()) -> Result<String, Failure> {
    cx.activity(note, &()).options(LIMITS).await?;
    if bad() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    to_the_end(&cx).await
}

async fn slow(cx: Workflow, _: ()) -> Result<String, Failure> {
    cx.activity(take_long, &()).options(LIMITS).await?;
    to_the_end(&cx).await
}

async fn stumbling(cx: Workflow, _: ()) -> Result<u32, Failure> {
    let policy = RetryPolicy::max_attempts(3).initial_interval(Duration::from_secs(3));
    cx.local_activity(stumble, &()).options(LocalActivityOptions::default().retry(policy)).await
}

async fn note(cx: Activity, _: ()) -> Result<(), Failure> {
    cx.get::<Ledger>().record(&cx).await
}

async fn other(cx: Activity, _: ()) -> Result<(), Failure> {
    cx.get::<Ledger>().record(&cx).await
}

async fn take_long(cx: Activity, _: ()) -> Result<(), Failure> {
    cx.get::<Ledger>().record(&cx).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(())
}

async fn stumble(cx: Activity, _: ()) -> Result<u32, Failure> {
    cx.get::<Ledger>().record(&cx).await?;
    if cx.attempt() == 1 { Err(Failure::application("stumbled")) } else { Ok(cx.attempt()) }
}
