use dormouse_core::{Activity, App, Failure};

fn resize(_: Activity, pixels: u32) -> Result<u32, Failure> {
    Ok(pixels / 2)
}

async fn charge(_: Activity, cents: u32) -> Result<u32, Failure> {
    Ok(cents)
}

fn main() {
    let _ = App::new().activity("resize", resize).blocking_activity("charge", charge);
}
