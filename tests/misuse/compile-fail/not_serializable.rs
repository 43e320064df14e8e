use dormouse_core::{Activity, App, Failure, Workflow};

struct Receipt;

async fn order(_: Workflow, _: ()) -> Result<Receipt, Failure> {
    Ok(Receipt)
}

async fn charge(_: Activity, _: ()) -> Result<Receipt, Failure> {
    Ok(Receipt)
}

fn main() {
    let _ = App::new().workflow("order", order).activity("charge", charge);
}
