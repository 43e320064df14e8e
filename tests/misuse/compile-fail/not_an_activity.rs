use std::rc::Rc;

use dormouse_core::{Activity, App, Failure, Workflow};

async fn a_workflow(_: Workflow, n: u32) -> Result<u32, Failure> {
    Ok(n)
}

async fn stays_on_its_thread(_: Activity, n: u32) -> Result<u32, Failure> {
    let n = Rc::new(n);
    std::future::ready(()).await;
    Ok(*n)
}

fn main() {
    let _ = App::new().activity("workflow", a_workflow).activity("rc", stays_on_its_thread);
}
