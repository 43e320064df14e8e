//! An application whose workflows misbehave when `ODDITIES=bad` is set, and are well otherwise: what happens to code
//! that loops, panics, waits for what nobody sends or no longer matches its history.

use std::process::ExitCode;
use std::time::Duration;

use dormouse::prelude::*;
use dormouse::{Activity, App, Failure, FailureKind, Workflow};
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
        .workflow("held", held)
        .workflow("overflowing", overflowing)
        .workflow("aborting", aborting)
        .workflow("deadlyLocally", deadly_locally)
        .workflow("resting", resting)
        .workflow("ordinary", ordinary)
        .workflow("mischief", mischief)
        .activity("note", note)
        .activity("other", other)
        .activity("takeLong", take_long)
        .activity("stumble", stumble)
        .activity("hold", hold)
        .activity("die", die)
        .activity("holdHere", hold_here)
        .activity("harm", harm)
        .blocking_activity("keep", keep)
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

async fn overflowing(cx: Workflow, _: ()) -> Result<String, Failure> {
    cx.activity(note, &()).options(LIMITS).await?;
    if bad() {
        return Ok(deeper(0).to_string());
    }
    to_the_end(&cx).await
}

async fn aborting(cx: Workflow, _: ()) -> Result<String, Failure> {
    if bad() {
        std::process::abort();
    }
    to_the_end(&cx).await
}

async fn deadly_locally(cx: Workflow, _: ()) -> Result<String, Failure> {
    cx.local_activity(die, &()).await?;
    to_the_end(&cx).await
}

async fn die(_: Activity, _: ()) -> Result<(), Failure> {
    if bad() {
        std::process::abort();
    }
    Ok(())
}

/// As many activities that hold their threads as threads can be, of each kind: they time out.
async fn held(cx: Workflow, each: u32) -> Result<u32, Failure> {
    const SOON: ActivityOptions =
        ActivityOptions::start_to_close(Duration::from_secs(1)).retry(RetryPolicy::max_attempts(1));
    let twice = LocalActivityOptions::start_to_close(Duration::from_secs(1)).retry(RetryPolicy::max_attempts(2));
    let calls = (0..each).map(|_| {
        let hold = cx.activity(hold, &()).options(SOON).start();
        let keep = cx.activity(keep, &()).options(SOON).start();
        let local = cx.local_activity(hold_here, &()).options(twice).start();
        async move { [hold.await.err(), keep.await.err(), local.await.err()] }
    });
    let ended = futures::future::join_all(calls.collect::<Vec<_>>()).await;
    let timed_out = |failure: &Failure| failure.chain().any(|link| matches!(link.kind, FailureKind::Timeout { .. }));
    Ok(ended.as_flattened().iter().flatten().filter(|failure| timed_out(failure)).count() as u32)
}

async fn resting(cx: Workflow, _: ()) -> Result<String, Failure> {
    cx.sleep(Duration::from_millis(100)).await?;
    cx.local_activity(note, &()).await?;
    Ok("rested".into())
}

/// What every other workflow here is not.
async fn ordinary(cx: Workflow, _: ()) -> Result<(), Failure> {
    cx.activity(note, &()).options(LIMITS).await?;
    cx.sleep(Duration::from_millis(100)).await?;
    cx.local_activity(note, &()).await
}

/// Harm of a kind: in a turn, in a query, in an activity of either kind.
async fn mischief(cx: Workflow, kind: String) -> Result<(), Failure> {
    const ONCE: ActivityOptions =
        ActivityOptions::start_to_close(Duration::from_secs(1)).retry(RetryPolicy::max_attempts(1));
    let twice = LocalActivityOptions::start_to_close(Duration::from_secs(1)).retry(RetryPolicy::max_attempts(2));
    let harm_of_queries = kind.clone();
    cx.answer(Query::<()>::new("harm"), move |(): ()| do_harm(&harm_of_queries));
    match kind.as_str() {
        "never ends" | "panics in a turn" | "aborts" | "overflows" => {
            // Not in its first turn: others come and go.
            cx.sleep(Duration::from_millis(10)).await?;
            do_harm(&kind);
        }
        "answers slowly" | "answers by a panic" | "overflows in a query" => cx.sleep(Duration::from_mins(1)).await?,
        local if local.ends_with("locally") => cx.local_activity(harm, &kind).options(twice).await?,
        _ => cx.activity(harm, &kind).options(ONCE).await?,
    }
    Ok(())
}

async fn harm(_: Activity, kind: String) -> Result<(), Failure> {
    do_harm(&kind);
    Ok(())
}

fn do_harm(kind: &str) {
    match kind.split(' ').next().unwrap_or_default() {
        "blocks" => std::thread::sleep(Duration::from_secs(8)),
        "spins" => {
            let began = std::time::Instant::now();
            while began.elapsed() < Duration::from_secs(3) {
                std::hint::spin_loop();
            }
        }
        "panics" => panic!("three is not four"),
        "never" => loop {
            std::thread::sleep(Duration::from_millis(50));
        },
        "answers" if kind.ends_with("panic") => panic!("no answer"),
        "answers" => std::thread::sleep(Duration::from_secs(30)),
        "overflows" => drop(deeper(0)),
        _ => std::process::abort(),
    }
}

fn deeper(n: u64) -> u64 {
    if n == u64::MAX { n } else { 1 + std::hint::black_box(deeper(std::hint::black_box(n + 1))) }
}

/// Holds its thread until somebody makes the file.
fn hold_on() {
    while !std::path::Path::new("released").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

async fn hold(_: Activity, _: ()) -> Result<(), Failure> {
    hold_on();
    Ok(())
}

async fn hold_here(_: Activity, _: ()) -> Result<(), Failure> {
    hold_on();
    Ok(())
}

fn keep(_: Activity, _: ()) -> Result<(), Failure> {
    hold_on();
    Ok(())
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
