use dormouse_core::{Failure, Signal, Workflow};

const APPROVAL: Signal<bool> = Signal::new("approval");

async fn order(cx: Workflow, _: ()) -> Result<u32, Failure> {
    let approved: u32 = cx.signal(APPROVAL).await?;
    Ok(approved)
}

fn main() {
    drop(order);
}
