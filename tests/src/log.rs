//! What this process logs, for tests to look at.

use std::io::Write;
use std::sync::{Mutex, Once, PoisonError};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Pen;

impl Write for Pen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LINES.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Listens from now on, to what the engine and the API say at the level `info` and above.
///
/// # Panics
/// When somebody else listens already.
pub fn listen() {
    static LISTEN: Once = Once::new();
    LISTEN.call_once(|| {
        let filter = Targets::new().with_default(LevelFilter::INFO);
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).without_time().with_writer(|| Pen);
        tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    });
}

/// The lines that speak of this.
#[must_use]
pub fn lines(of: &str) -> Vec<String> {
    let all = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    String::from_utf8_lossy(&all).lines().filter(|line| line.contains(of)).map(ToOwned::to_owned).collect()
}
