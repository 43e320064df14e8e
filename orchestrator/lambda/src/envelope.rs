//! SQS events as letters, and what became of them as an answer.
//!
//! There is one way to answer ([`Answer`]): Lambda takes an answer that it cannot read, or none, as "all handled" and
//! deletes the whole batch. On a FIFO queue, what follows a failed letter in its group goes back with it, or the group
//! would be handled out of order.

use std::collections::BTreeSet;

use aws_lambda_events::event::sqs::SqsMessage;
use dormouse_aws::queues::REASON_ATTRIBUTE;
use dormouse_core::Timestamp;
use dormouse_engine::seams::Delivery;
use serde::Serialize;

/// A message as SQS delivered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Names it in the answer.
    pub id: String,
    /// Names this delivery.
    pub receipt: String,
    /// The queue that it came from.
    pub queue_arn: String,
    /// Who sent it, as SQS says: the unique id of a role and the name of its session, or an account. Empty when SQS does
    /// not say.
    pub sender: String,
    /// Its message group, on a FIFO queue.
    pub group: Option<String>,
    /// How often it has been delivered, this time included.
    pub deliveries: u32,
    /// When the queue took it in.
    pub sent_at: Timestamp,
    /// Why it is a dead letter, where whoever gave it up said so.
    pub reason: Option<String>,
    /// What it says.
    pub body: String,
}

impl Letter {
    /// Reads an SQS record. What is missing is empty: such a letter fails by itself, not with its batch.
    #[must_use]
    pub fn new(message: SqsMessage) -> Self {
        let attribute = |name: &str| message.attributes.get(name).cloned();
        let told = message.message_attributes.get(REASON_ATTRIBUTE);
        Self {
            reason: told.and_then(|reason| reason.string_value.clone()),
            sender: attribute("SenderId").unwrap_or_default(),
            group: attribute("MessageGroupId"),
            deliveries: attribute("ApproximateReceiveCount").and_then(|count| count.parse().ok()).unwrap_or(1),
            sent_at: Timestamp::from_millis(
                attribute("SentTimestamp").and_then(|at| at.parse().ok()).unwrap_or_default(),
            ),
            id: message.message_id.unwrap_or_default(),
            receipt: message.receipt_handle.unwrap_or_default(),
            queue_arn: message.event_source_arn.unwrap_or_default(),
            body: message.body.unwrap_or_default(),
        }
    }

    /// Whether somebody had it before and did not acknowledge it.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        if self.deliveries > 1 { Delivery::Again } else { Delivery::First }
    }
}

/// Letters of one message group, in order; without a group, each letter is its own.
#[must_use]
pub fn by_group(letters: Vec<Letter>) -> Vec<Vec<Letter>> {
    let mut groups: Vec<Vec<Letter>> = Vec::new();
    for letter in letters {
        let same = |group: &&mut Vec<Letter>| letter.group.is_some() && group[0].group == letter.group;
        match groups.iter_mut().find(same) {
            Some(group) => group.push(letter),
            None => groups.push(vec![letter]),
        }
    }
    groups
}

/// Which letters of a batch are to be delivered again.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Answer {
    #[serde(rename = "batchItemFailures")]
    failures: Vec<Failure>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Failure {
    #[serde(rename = "itemIdentifier")]
    id: String,
}

impl Answer {
    /// These failed, and everything else was handled.
    #[must_use]
    pub fn failed(ids: BTreeSet<String>) -> Self {
        Self { failures: ids.into_iter().map(|id| Failure { id }).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(id: &str, group: Option<&str>) -> Letter {
        Letter {
            id: id.into(),
            receipt: String::new(),
            queue_arn: String::new(),
            sender: String::new(),
            group: group.map(str::to_owned),
            deliveries: 1,
            sent_at: Timestamp::from_millis(0),
            reason: None,
            body: String::new(),
        }
    }

    #[test]
    fn groups_keep_their_order_and_strangers_stay_apart() {
        let letters = vec![
            letter("1", Some("a")),
            letter("2", Some("b")),
            letter("3", Some("a")),
            letter("4", None),
            letter("5", None),
        ];
        let ids = |groups: Vec<Vec<Letter>>| -> Vec<Vec<String>> {
            groups.into_iter().map(|group| group.into_iter().map(|letter| letter.id).collect()).collect()
        };
        assert_eq!(ids(by_group(letters)), [vec!["1", "3"], vec!["2"], vec!["4"], vec!["5"]]);
    }

    #[test]
    fn an_answer_always_says_what_failed() {
        let text = |answer: &Answer| serde_json::to_string(answer).unwrap();
        assert_eq!(text(&Answer::default()), r#"{"batchItemFailures":[]}"#);
        let failed = Answer::failed(BTreeSet::from(["x".to_owned()]));
        assert_eq!(text(&failed), r#"{"batchItemFailures":[{"itemIdentifier":"x"}]}"#);
    }

    #[test]
    fn a_record_with_nothing_in_it_is_a_letter_all_the_same() {
        let record: SqsMessage = serde_json::from_str(r#"{"attributes": null, "messageAttributes": null}"#).unwrap();
        assert_eq!(Letter::new(record), letter("", None));
    }

    #[test]
    fn who_gave_a_letter_up_may_say_why() {
        let text = r#"{"messageAttributes": {"dormouse-reason": {"stringValue": "no JSON", "dataType": "String"}}}"#;
        let record: SqsMessage = serde_json::from_str(text).unwrap();
        assert_eq!(Letter::new(record).reason.as_deref(), Some("no JSON"));
    }
}
