//! The machine: where time and randomness enter the engine.

use dormouse_core::Timestamp;

use crate::seams::Host;

/// The machine's clock, and random numbers from the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Machine;

impl Host for Machine {
    #[allow(clippy::disallowed_methods, reason = "the one place where the clock enters the engine")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    #[allow(clippy::disallowed_methods, reason = "the one place where randomness enters the engine")]
    fn fresh_id(&self) -> [u8; 16] {
        uuid::Uuid::new_v4().into_bytes()
    }
}
