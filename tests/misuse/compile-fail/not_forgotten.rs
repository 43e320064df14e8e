#![deny(unused_must_use)]

use std::time::Duration;

use dormouse_core::{Activity, Failure, Signal, Workflow};

const GO: Signal<()> = Signal::new("go");

async fn charge(_: Activity, cents: u32) -> Result<u32, Failure> {
    Ok(cents)
}

async fn order(cx: Workflow, cents: u32) -> Result<(), Failure> {
    cx.activity(charge, &cents).start_to_close(Duration::from_secs(1));
    cx.local_activity(charge, &cents).start();
    cx.sleep(Duration::from_secs(1));
    cx.signal(GO);
    Ok(())
}

fn main() {
    let _ = order;
}
