//! The engine's commits and messages through a proxy that does what networks and services do and imitations never:
//! answers lost after the write, conflicts, throttling, duplicates (rule C1 with the real clients).
//!
//! With `--features aws` and DORMOUSE_TEST_AWS_ENDPOINT, where MiniStack or another imitation of AWS listens.

#[cfg(feature = "aws")]
#[path = "faults/commits.rs"]
mod commits;
#[cfg(feature = "aws")]
#[path = "faults/dynamo.rs"]
mod dynamo;
#[cfg(feature = "aws")]
#[path = "faults/fan_out.rs"]
mod fan_out;
#[cfg(feature = "aws")]
#[path = "faults/hidden.rs"]
mod hidden;
#[cfg(feature = "aws")]
#[path = "faults/messages.rs"]
mod messages;
#[cfg(feature = "aws")]
#[path = "faults/objects.rs"]
mod objects;
#[cfg(feature = "aws")]
#[path = "faults/parts.rs"]
mod parts;
#[cfg(feature = "aws")]
#[path = "faults/planted.rs"]
mod planted;
#[cfg(feature = "aws")]
#[path = "faults/storm.rs"]
mod storm;

#[cfg(not(feature = "aws"))]
#[test]
fn commits_survive_faults() {
    dormouse_tests::tell!("SKIPPED: faults between the engine and AWS need the feature `aws`");
}
