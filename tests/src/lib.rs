//! What tests of whole processes need: servers as children, proof of what they wrote before they answered, and a proxy
//! that counts and spoils what passes between them and their services.

#[cfg(feature = "aws")]
pub mod cloud;
pub mod dice;
pub mod endpoints;
pub mod hostile;
pub mod log;
pub mod objects;
pub mod proxy;
pub mod server;
pub mod syncs;
pub mod texts;
pub mod written;

use std::fmt::Arguments;
use std::io::Write;

/// Says what a test found, also when it passes: the harness keeps back only what `print!` and its like write.
///
/// # Panics
/// When standard error is closed.
pub fn tell(text: Arguments<'_>) {
    writeln!(std::io::stderr(), "{text}").expect("somebody listens");
}

/// The function of this name, written as `println!` is.
#[macro_export]
macro_rules! tell {
    ($($text:tt)*) => {
        $crate::tell(::std::format_args!($($text)*))
    };
}
