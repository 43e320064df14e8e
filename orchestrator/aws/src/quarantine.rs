//! Dead letters: messages that nobody could handle, kept where people can look at them, until they are sent again or
//! thrown away. They are items of the store's table, in the partition `quarantine#letters`, in the order of their age.
//!
//! Keeping one costs a put, one WRU per KB; a body over 64 KiB is an object in the bucket.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use dormouse_core::{BatchHash, Timestamp};
use tokio::runtime::Handle;

use crate::blobs::Blobs;
use crate::on;
use crate::store::fault;
use dormouse_engine::seams::SeamFuture;
use dormouse_engine::store::StoreError;

const PARTITION: &str = "quarantine#letters";

/// Larger bodies are objects in the bucket.
const LARGEST_INLINE: usize = 64 << 10;

/// A letter older than this may speak of a run that is retired since.
const FRESH: Duration = Duration::from_hours(24 * 14);

/// A message that nobody could handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The queue's id of the message.
    pub id: String,
    /// When the queue first took it in: SQS's `SentTimestamp`, which stays the same when the message is delivered
    /// again.
    pub received_at: Timestamp,
    /// The queue that it could not be handled from (its ARN or name).
    pub queue: String,
    /// Why it is here, for people.
    pub reason: String,
    /// Its sender may tell runs outcomes of activities and nothing else: code of activities, for one. To send it again would
    /// lend it the rights of whoever does.
    pub untrusted: bool,
    /// The message itself. `None`: it is lost, so there is nothing to send again.
    pub body: Option<String>,
}

impl Letter {
    /// Whether it may be sent again: it is too young to speak of a run that is gone.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now.since(self.received_at) <= FRESH
    }

    /// Names it for [`Quarantine::list`] and [`Quarantine::remove`].
    #[must_use]
    pub fn place(&self) -> String {
        format!("{:020}#{}", self.received_at.as_millis(), self.id)
    }

    /// Names it for people: ids of messages alone are not told to be unique among queues.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{}", self.received_at.as_millis(), self.id)
    }
}

/// The place of the letter with this name; `None` when no letter is named so.
#[must_use]
pub fn place_of(name: &str) -> Option<String> {
    let (millis, id) = name.split_once('-')?;
    let canonical = millis == "0" || !millis.starts_with(['0', '+']);
    let millis: u64 = millis.parse().ok().filter(|_| canonical)?;
    Some(format!("{millis:020}#{id}"))
}

/// Where dead letters are kept. Cloning is cheap.
#[derive(Clone)]
pub struct Quarantine {
    client: Client,
    table: Arc<str>,
    blobs: Blobs,
    runtime: Handle,
}

impl fmt::Debug for Quarantine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quarantine").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Quarantine {
    /// The quarantine in this table, with large bodies in this bucket. Requests run on `runtime`.
    #[must_use]
    pub fn new(client: Client, table: &str, blobs: Blobs, runtime: Handle) -> Self {
        Self { client, table: table.into(), blobs, runtime }
    }

    /// Keeps a letter. The same letter again does no harm, so whoever does not know whether it was kept keeps it
    /// again.
    ///
    /// # Errors
    /// [`StoreError`]: it may not be kept; leave it in its queue.
    #[must_use]
    pub fn put(&self, letter: Letter) -> SeamFuture<'static, ()> {
        let this = self.clone();
        on(&self.runtime, async move {
            let place = letter.place();
            let put = this
                .client
                .put_item()
                .table_name(&*this.table)
                .item("p", text(PARTITION))
                .item("s", text(&place))
                .item("queue", text(&letter.queue))
                .item("reason", text(&letter.reason))
                .item("received_at", AttributeValue::N(letter.received_at.as_millis().to_string()))
                .item("id", text(&letter.id));
            let put = if letter.untrusted { put.item("untrusted", AttributeValue::Bool(true)) } else { put };
            let put = match letter.body {
                None => put,
                Some(body) if body.len() <= LARGEST_INLINE => put.item("body", text(&body)),
                Some(body) => {
                    let object = object(&place);
                    this.blobs.put(&object, Bytes::from(body)).await?;
                    put.item("object", text(&object))
                }
            };
            put.send().await.map(drop).map_err(fault::failed)
        })
    }

    /// Up to `limit` letters, the oldest first, behind the one at the given place.
    ///
    /// # Errors
    /// [`StoreError`].
    #[must_use]
    pub fn list(&self, limit: usize, after: Option<&str>) -> SeamFuture<'static, Vec<Letter>> {
        let (this, after) = (self.clone(), after.map(str::to_owned));
        on(&self.runtime, async move {
            let mut letters = Vec::new();
            let mut last = after
                .map(|after| [("p".to_owned(), text(PARTITION)), ("s".to_owned(), text(&after))].into_iter().collect());
            while letters.len() < limit {
                let page = this
                    .client
                    .query()
                    .table_name(&*this.table)
                    .key_condition_expression("#p = :p")
                    .expression_attribute_names("#p", "p")
                    .expression_attribute_values(":p", text(PARTITION))
                    .limit(i32::try_from(limit - letters.len()).unwrap_or(i32::MAX))
                    .consistent_read(true)
                    .set_exclusive_start_key(last)
                    .send()
                    .await
                    .map_err(fault::failed)?;
                for item in page.items.unwrap_or_default() {
                    letters.push(this.letter(&item).await?);
                }
                last = page.last_evaluated_key;
                if last.is_none() {
                    break;
                }
            }
            Ok(letters)
        })
    }

    /// The letter at this place.
    ///
    /// # Errors
    /// [`StoreError`].
    #[must_use]
    pub fn get(&self, place: &str) -> SeamFuture<'static, Option<Letter>> {
        let (this, place) = (self.clone(), place.to_owned());
        on(&self.runtime, async move {
            let get = this.client.get_item().table_name(&*this.table).consistent_read(true);
            let found = get.key("p", text(PARTITION)).key("s", text(&place)).send().await.map_err(fault::failed)?;
            match found.item {
                Some(item) => this.letter(&item).await.map(Some),
                None => Ok(None),
            }
        })
    }

    /// Throws away the letter at this place. One that is not there does no harm.
    ///
    /// # Errors
    /// [`StoreError`]: it may still be there.
    #[must_use]
    pub fn remove(&self, place: &str) -> SeamFuture<'static, ()> {
        let (this, place) = (self.clone(), place.to_owned());
        on(&self.runtime, async move {
            let delete = this.client.delete_item().table_name(&*this.table);
            delete.key("p", text(PARTITION)).key("s", text(&place)).send().await.map_err(fault::failed)?;
            // Last: a letter without its body would be worse than a body without its letter.
            this.blobs.delete_all(&folder(&place)).await
        })
    }

    async fn letter(&self, item: &std::collections::HashMap<String, AttributeValue>) -> Result<Letter, StoreError> {
        let field = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
        let body = match (field("body"), field("object")) {
            (Some(body), _) => Some(body),
            (None, Some(object)) => self.blobs.get(&object).await?.and_then(|body| String::from_utf8(body.into()).ok()),
            (None, None) => None,
        };
        let received_at = item.get("received_at").and_then(|value| value.as_n().ok()?.parse().ok()).unwrap_or(0);
        Ok(Letter {
            id: field("id").unwrap_or_default(),
            received_at: Timestamp::from_millis(received_at),
            queue: field("queue").unwrap_or_default(),
            reason: field("reason").unwrap_or_default(),
            untrusted: item.contains_key("untrusted"),
            body,
        })
    }
}

/// Message ids may hold anything; a hash does not.
fn folder(place: &str) -> String {
    format!("quarantine/{}", BatchHash::of(place.as_bytes()))
}

fn object(place: &str) -> String {
    format!("{}/body", folder(place))
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_places() {
        for (millis, id) in [(0, ""), (1_763_820_000_000, "0b0e-4c2#-"), (u64::MAX, "é")] {
            let letter = Letter {
                id: id.into(),
                received_at: Timestamp::from_millis(millis),
                queue: String::new(),
                reason: String::new(),
                untrusted: false,
                body: None,
            };
            assert_eq!(place_of(&letter.name()), Some(letter.place()));
        }
        for odd in ["", "-a", "7", "a-b", "+7-a", "07-a", "00-a", " 7-a", "18446744073709551616-a"] {
            assert_eq!(place_of(odd), None, "{odd}");
        }
    }
}
