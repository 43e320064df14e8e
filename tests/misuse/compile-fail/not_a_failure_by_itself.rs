use std::error::Error;

use dormouse_core::{Activity, Failure};

fn parse(text: &str) -> Result<u32, Box<dyn Error + Send + Sync>> {
    Ok(text.parse()?)
}

async fn read(_: Activity, text: String) -> Result<u32, Failure> {
    Ok(parse(&text)?)
}

async fn refuse(_: Activity, text: String) -> Result<u32, Failure> {
    Err(text)?
}

fn main() {
    drop((read, refuse));
}
