use std::error::Error;

use dormouse_core::Failure;

fn charge() -> Result<(), Failure> {
    Err(Failure::application("declined"))
}

fn main() -> Result<(), Box<dyn Error>> {
    charge()?;
    Ok(())
}
