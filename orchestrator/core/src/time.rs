//! Recorded time: milliseconds since the Unix epoch, never read from a clock in this crate.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time, to the millisecond. In JSON and for people: RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not.
    #[must_use]
    pub const fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// When a turn was decided: what `now()` was for the code, and what the decider's clock showed. The two differ where a clock
/// was set back, or is behind another's: `now()` never goes back, and waits are measured by the clock (rule C8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// What `now()` was.
    pub now: Timestamp,
    /// What the decider's clock showed; never later.
    pub clock: Timestamp,
}

impl Moment {
    /// By how many milliseconds the clock was behind, if it was.
    #[must_use]
    pub(crate) fn behind_ms(self) -> Option<u64> {
        Some(millis(self.now.since(self.clock))).filter(|behind| *behind > 0)
    }
}

/// A duration in whole milliseconds, rounded up so that nothing fires early.
#[must_use]
pub const fn millis(duration: Duration) -> u64 {
    let nanos = duration.as_nanos();
    let millis = nanos.div_ceil(1_000_000);
    if millis > u64::MAX as u128 { u64::MAX } else { millis as u64 }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, by: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(millis(by)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;
    fn sub(self, by: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(millis(by)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i64::try_from(self.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) {
            Some(at) => write!(f, "{at:.3}"),
            // Beyond the year 9999: still a number that can be compared.
            None => write!(f, "{}ms", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if let Some(ms) = text.strip_suffix("ms").and_then(|ms| ms.parse().ok()) {
            return Ok(Self(ms));
        }
        let at: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        let ms = u64::try_from(at.as_millisecond()).map_err(|_| serde::de::Error::custom("before 1970"))?;
        Ok(Self(ms))
    }
}

impl<C> minicbor::Encode<C> for Timestamp {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u64(self.0)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Timestamp {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Ok(Self(d.u64()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_rfc3339_and_nothing_fires_early() {
        let at = Timestamp::from_millis(1_700_000_000_123);
        assert_eq!(serde_json::to_string(&at).unwrap(), "\"2023-11-14T22:13:20.123Z\"");
        assert_eq!(serde_json::from_str::<Timestamp>("\"2023-11-14T22:13:20.123Z\"").unwrap(), at);
        assert_eq!(millis(Duration::from_micros(1)), 1);
        let far = Timestamp::from_millis(u64::MAX);
        assert_eq!(serde_json::from_value::<Timestamp>(serde_json::to_value(far).unwrap()).unwrap(), far);
    }
}
