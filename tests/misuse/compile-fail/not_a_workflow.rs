use dormouse_core::{App, Failure, Workflow};

async fn without_input(_: Workflow) -> Result<u32, Failure> {
    Ok(1)
}

async fn without_result(_: Workflow, n: u32) -> u32 {
    n
}

async fn context_last(n: u32, _: Workflow) -> Result<u32, Failure> {
    Ok(n)
}

fn main() {
    let _ = App::new()
        .workflow("withoutInput", without_input)
        .workflow("withoutResult", without_result)
        .workflow("contextLast", context_last);
}
