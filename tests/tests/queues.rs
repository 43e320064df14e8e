//! Queues and alarms against their conformance suites, and what the AWS ones promise besides.

#[path = "queues/memory.rs"]
mod memory;

#[cfg(feature = "aws")]
#[path = "queues/dead_letters.rs"]
mod dead_letters;
#[cfg(feature = "aws")]
#[path = "queues/redrive.rs"]
mod redrive;
#[cfg(feature = "aws")]
#[path = "queues/sqs.rs"]
mod sqs;

/// The endpoint to ask; `scripts/local-aws start` says how to set the environment. None, and a line that says so past
/// the capture of the test harness: a test that asked nobody should not look like one that did.
fn endpoint() -> Option<String> {
    let found = std::env::var("DORMOUSE_TEST_AWS_ENDPOINT").ok().filter(|_| cfg!(feature = "aws"));
    if found.is_none() {
        let needed = "the feature `aws` and DORMOUSE_TEST_AWS_ENDPOINT";
        dormouse_tests::tell!("SKIPPED: SQS and EventBridge Scheduler are asked only with {needed}");
    }
    found
}

#[test]
fn sqs_and_scheduler_conform() {
    #[cfg_attr(not(feature = "aws"), allow(unused_variables))]
    if let Some(endpoint) = endpoint() {
        #[cfg(feature = "aws")]
        sqs::conforms(&endpoint);
    }
}

#[test]
fn sqs_and_scheduler_are_sent_no_more_than_is_said() {
    #[cfg_attr(not(feature = "aws"), allow(unused_variables))]
    if let Some(endpoint) = endpoint() {
        #[cfg(feature = "aws")]
        sqs::sends_what_it_says(&endpoint);
    }
}

#[test]
fn what_is_in_quarantine_is_sent_again() {
    #[cfg_attr(not(feature = "aws"), allow(unused_variables))]
    if let Some(endpoint) = endpoint() {
        #[cfg(feature = "aws")]
        redrive::sends_again(&endpoint);
    }
}

/// Fault 16.
#[test]
fn a_task_throttled_into_the_dead_letter_queue_completes_after_redrive() {
    #[cfg_attr(not(feature = "aws"), allow(unused_variables))]
    if let Some(endpoint) = endpoint() {
        #[cfg(feature = "aws")]
        redrive::throttled_and_redriven(&endpoint);
    }
}
