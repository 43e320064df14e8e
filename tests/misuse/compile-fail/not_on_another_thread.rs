use dormouse_core::{Failure, Workflow};

async fn order(cx: Workflow, _: ()) -> Result<(), Failure> {
    std::thread::spawn(move || drop(cx.now()));
    Ok(())
}

fn main() {
    drop(order);
}
