//! Many messages at once: in as few requests as SQS takes them in, several under way at a time. What is in memory
//! besides the messages asked for is bounded by [`REQUESTS_AT_A_TIME`] requests.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_sqs::operation::send_message_batch::SendMessageBatchOutput;
use aws_sdk_sqs::types::{BatchResultErrorEntry, SendMessageBatchRequestEntry};
use dormouse_engine::store::{Cause, StoreError};
use futures::{Stream, StreamExt};

use super::{Queues, sqs_delay};
use crate::errors::Service;

/// The most entries that SQS takes in one request.
const MOST_ENTRIES: usize = 10;

/// The most bytes that the bodies of one request have together. SQS documents 1 MiB, and documented 256 KiB for years:
/// the smaller of both is taken everywhere.
const MOST_BYTES: usize = 256 << 10;

/// Requests under way at a time.
const REQUESTS_AT_A_TIME: usize = 16;

/// Messages made ready at a time: large ones are put into the bucket first, distant ones get a schedule.
const READIED_AT_A_TIME: usize = 16;

/// How often an entry is sent that SQS does not take though nothing is wrong with it.
const MOST_TRIES: u32 = 5;

/// The pause before it is sent again; it doubles. Each lasts between half and all of that, by chance.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parcel {
    /// The queue.
    pub(crate) url: String,
    /// What it says.
    pub(crate) body: String,
    /// How it travels.
    pub(crate) way: Way,
}

/// How a message travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// On a standard queue, which keeps it back for so many seconds.
    Delayed(u32),
    /// On a FIFO queue, in this group; within five minutes, the same id is the same message.
    Grouped { group: String, id: String },
}

/// What goes to one queue in one request.
#[derive(Debug, Default, PartialEq, Eq)]
struct Batch {
    url: String,
    parcels: Vec<Parcel>,
    bytes: usize,
}

/// Sorts messages into requests. One open batch for each queue.
#[derive(Default)]
struct Packer {
    open: BTreeMap<String, Batch>,
}

impl Packer {
    /// Takes a message in. The batch that is full now.
    fn push(&mut self, parcel: Parcel) -> Option<Batch> {
        let open = self.open.entry(parcel.url.clone()).or_default();
        let full = open.parcels.len() == MOST_ENTRIES || open.bytes + parcel.body.len() > MOST_BYTES;
        let closed = if full { std::mem::take(open) } else { Batch::default() };
        open.url.clone_from(&parcel.url);
        open.bytes += parcel.body.len();
        open.parcels.push(parcel);
        Some(closed).filter(|closed| !closed.parcels.is_empty())
    }

    /// A batch that will not be filled any more.
    fn pop(&mut self) -> Option<Batch> {
        self.open.pop_first().map(|(_, batch)| batch)
    }
}

/// Requests for what is ready. `None`: there is nothing to send.
fn packed(
    ready: impl Stream<Item = Result<Option<Parcel>, StoreError>>,
) -> impl Stream<Item = Result<Batch, StoreError>> {
    let ready = Box::pin(ready.fuse());
    futures::stream::unfold((ready, Packer::default()), |(mut ready, mut packer)| async {
        loop {
            let next = match ready.next().await {
                Some(Ok(Some(parcel))) => packer.push(parcel).map(Ok),
                Some(Ok(None)) => None,
                Some(Err(error)) => Some(Err(error)),
                None => return packer.pop().map(|batch| (Ok(batch), (ready, packer))),
            };
            if let Some(next) = next {
                return Some((next, (ready, packer)));
            }
        }
    })
}

impl Queues {
    /// Sends messages as they become ready. One that is refused for good does not keep back the others; when a queue
    /// does not answer, no more are sent.
    pub(crate) async fn send_all(
        &self,
        ready: impl Stream<Item = impl Future<Output = Result<Option<Parcel>, StoreError>>>,
    ) -> Result<(), StoreError> {
        let requests = packed(ready.buffer_unordered(READIED_AT_A_TIME));
        let sends = requests.map(async |request| match request {
            Ok(batch) => self.send_batch(batch).await,
            Err(error) => Err(error),
        });
        let mut sends = Box::pin(sends.buffer_unordered(REQUESTS_AT_A_TIME));
        let mut refused = Ok(());
        while let Some(sent) = sends.next().await {
            match sent {
                Err(StoreError::Unknown(_)) => return sent,
                Err(StoreError::Refused(_)) => refused = sent,
                Ok(()) => {}
            }
        }
        refused
    }

    /// Sends one request, and again what SQS did not take of it.
    async fn send_batch(&self, Batch { url, mut parcels, .. }: Batch) -> Result<(), StoreError> {
        let mut refused = Ok(());
        let mut why = String::new();
        for tries in 0..MOST_TRIES {
            if tries > 0 {
                tokio::time::sleep(self.pause(tries)).await;
            }
            let answer = self.request(&url, &parcels).await?;
            let mut left = Vec::new();
            for (number, parcel) in parcels.into_iter().enumerate() {
                match fate(&number.to_string(), &answer) {
                    Fate::Sent => {}
                    Fate::Refused(told) => refused = Err(StoreError::refused(format!("{url}: {told}"))),
                    Fate::NotTaken(told) => {
                        why = told;
                        left.push(parcel);
                    }
                }
            }
            if left.is_empty() {
                return refused;
            }
            parcels = left;
        }
        let left = parcels.len();
        Err(StoreError::unknown(format!(
            "{url}: {left} messages of a batch were not taken in {MOST_TRIES} tries: {why}"
        )))
    }

    async fn request(&self, url: &str, parcels: &[Parcel]) -> Result<SendMessageBatchOutput, StoreError> {
        let entries = parcels.iter().enumerate().map(|(number, parcel)| {
            let entry = SendMessageBatchRequestEntry::builder().id(number.to_string()).message_body(&parcel.body);
            let entry = match &parcel.way {
                Way::Delayed(delay) => entry.delay_seconds(sqs_delay(*delay)?),
                Way::Grouped { group, id } => entry.message_group_id(group).message_deduplication_id(id),
            };
            entry.build().map_err(|error| StoreError::refused(Cause::of(error)))
        });
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        let send = self.0.sqs.send_message_batch().queue_url(url).set_entries(Some(entries));
        send.send().await.map_err(|error| Service::Sqs.error(url, &error))
    }

    /// The pause after so many tries.
    fn pause(&self, tries: u32) -> Duration {
        let share = 0.5 + f64::from(self.0.settings.host.fresh_id()[0]) / 512.0;
        (FIRST_PAUSE * 2_u32.saturating_pow(tries.saturating_sub(1))).mul_f64(share)
    }
}

/// What became of one entry of a request.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Sent,
    /// Not to be sent again.
    Refused(String),
    /// To be sent again: what an answer does not mention may be there, and then comes twice.
    NotTaken(String),
}

fn fate(id: &str, answer: &SendMessageBatchOutput) -> Fate {
    let told = |failed: &BatchResultErrorEntry| {
        format!("{}: {}", failed.code(), failed.message().unwrap_or("without a message"))
    };
    match answer.failed().iter().find(|failed| failed.id() == id) {
        Some(failed) if Service::Sqs.refusal(failed.code()).is_some() => Fate::Refused(told(failed)),
        Some(failed) => Fate::NotTaken(told(failed)),
        None if answer.successful().iter().any(|sent| sent.id() == id) => Fate::Sent,
        None => Fate::NotTaken("the answer does not mention them".into()),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_sqs::types::SendMessageBatchResultEntry;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::LARGEST_BODY;

    fn parcel(queue: u8, length: usize, number: usize) -> Parcel {
        Parcel { url: format!("queue-{queue}"), body: "x".repeat(length), way: Way::Delayed(number as u32) }
    }

    proptest! {
        #[test]
        fn every_message_is_in_one_request_of_its_queue_that_sqs_takes(
            lengths in proptest::collection::vec((0..3_u8, prop_oneof![1..2_000_usize, 1..=LARGEST_BODY]), 0..60)
        ) {
            let parcels: Vec<_> =
                lengths.iter().enumerate().map(|(number, (queue, length))| parcel(*queue, *length, number)).collect();
            let mut packer = Packer::default();
            let mut batches: Vec<_> = parcels.iter().filter_map(|parcel| packer.push(parcel.clone())).collect();
            batches.extend(std::iter::from_fn(|| packer.pop()));
            for batch in &batches {
                prop_assert!((1..=MOST_ENTRIES).contains(&batch.parcels.len()));
                prop_assert!(batch.parcels.iter().map(|parcel| parcel.body.len()).sum::<usize>() <= MOST_BYTES);
                prop_assert!(batch.parcels.iter().all(|parcel| parcel.url == batch.url));
            }
            let mut sent: Vec<_> = batches.into_iter().flat_map(|batch| batch.parcels).collect();
            sent.sort_by_key(|parcel| match parcel.way {
                Way::Delayed(number) => number,
                Way::Grouped { .. } => u32::MAX,
            });
            prop_assert_eq!(sent, parcels);
        }
    }

    #[test]
    fn small_messages_fill_their_requests() {
        let mut packer = Packer::default();
        let full = (0..100).filter_map(|number| packer.push(parcel(0, 100, number))).count();
        assert_eq!(full + std::iter::from_fn(|| packer.pop()).count(), 10);
    }

    #[test]
    fn what_became_of_an_entry_as_a_table() {
        let failed = |code: &str, ours: bool| {
            let entry = BatchResultErrorEntry::builder().id("3").code(code).sender_fault(ours).build().unwrap();
            SendMessageBatchOutput::builder().set_successful(Some(Vec::new())).failed(entry).build().unwrap()
        };
        let sent = SendMessageBatchResultEntry::builder().id("3").message_id("m").md5_of_message_body("0").build();
        let sent = SendMessageBatchOutput::builder().successful(sent.unwrap()).set_failed(Some(Vec::new()));
        let sent = sent.build().unwrap();
        assert_eq!(fate("3", &sent), Fate::Sent);
        assert!(matches!(fate("4", &sent), Fate::NotTaken(_)), "nobody says that it is there");
        assert!(matches!(fate("3", &failed("InternalError", false)), Fate::NotTaken(_)));
        assert!(matches!(fate("3", &failed("RequestThrottled", true)), Fate::NotTaken(_)));
        assert!(matches!(fate("3", &failed("AccessDenied", true)), Fate::NotTaken(_)));
        assert!(matches!(fate("3", &failed("InvalidMessageContents", true)), Fate::Refused(_)));
    }
}
