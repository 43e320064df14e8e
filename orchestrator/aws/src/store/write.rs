//! Writes: each is one conditional request, sent once.

use std::time::Duration;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    CancellationReason, Put, ReturnValuesOnConditionCheckFailure as OnFailure, TransactWriteItem, Update,
};
use bytes::Bytes;
use dormouse_core::{BatchHash, RunKey};

use super::item::{self, Amendment, Item, Pointer, Stored, number, text};
use super::{Inner, fault, keys};
use dormouse_engine::store::{AttemptKey, Cause, Creation, Entry, Parked, StoreError, Swap};

/// Larger records are objects in the bucket: an item may have 400 KB, and a page of history 1 MB.
pub(super) const LARGEST_INLINE: usize = 64 << 10;

/// DynamoDB's limit for an item, its names included.
const LARGEST_ITEM: usize = 400 << 10;

/// Room for an attempt record's version and the names of its attributes.
const ATTEMPT_OVERHEAD: usize = 64;

/// A parking's explanation is for people, and travels with every page of the indexes.
const LARGEST_REASON: usize = 16 << 10;

const ABSENT: &str = "attribute_not_exists(#p)";

/// There is a run, and it is not retired.
const RUN_IS_THERE: &str = "attribute_exists(#p) AND attribute_not_exists(#retired)";

impl Inner {
    pub(super) async fn create(&self, run: &RunKey, record: Bytes, entry: Entry) -> Result<Creation, StoreError> {
        keys::check(&run.workflow)?;
        let sequence = entry.sequence();
        let mut batch = item::key(keys::partition(&run.workflow), keys::batch(run.ordinal, sequence));
        self.stored(run, sequence, &record).await?.write(&mut batch);
        let answer = match &entry {
            Entry::Append(_, update) if update.is_none() => self.put_batch(batch).await,
            Entry::Append(..) | Entry::Open(_) => self.transact(run, batch, &entry).await,
        };
        match answer? {
            Answer::Created => Ok(Creation::Created),
            Answer::Found(found) => self.found(found, &record).await.map(Creation::Exists),
            // An emulator's answer, or what was in the way has gone: look.
            Answer::FoundSomething => {
                match self.get(keys::partition(&run.workflow), keys::batch(run.ordinal, sequence)).await? {
                    Some(found) => self.found(found, &record).await.map(Creation::Exists),
                    None => {
                        Err(StoreError::unknown(format!("batch {sequence} of {run} was in conflict, and is not there")))
                    }
                }
            }
            Answer::NoRun => Err(no_run(run)),
            Answer::Busy(why) => {
                self.give_way(&record).await;
                Err(StoreError::unknown(why))
            }
        }
    }

    /// How the record is kept: a large one is put into the bucket, before anything points to it.
    async fn stored(&self, run: &RunKey, sequence: u64, record: &Bytes) -> Result<Stored, StoreError> {
        if record.len() <= LARGEST_INLINE {
            return Ok(Stored::Here(record.clone()));
        }
        let pointer = Pointer::to(&keys::objects(run), sequence, record);
        self.blobs.put(&pointer.object, record.clone()).await?;
        Ok(Stored::There(pointer))
    }

    /// The record that stands where ours was to be. Empty, as no batch is, when it cannot be had any more: whoever
    /// then reads the history finds the gap.
    async fn found(&self, found: Item, ours: &Bytes) -> Result<Bytes, StoreError> {
        match Stored::read(found) {
            Stored::Here(record) => Ok(record),
            // Put there a moment ago.
            Stored::There(pointer) if pointer.fits(ours) => Ok(ours.clone()),
            Stored::There(pointer) => Ok(self.fetch(&pointer).await?.unwrap_or_default()),
            Stored::Damaged => Ok(Bytes::new()),
        }
    }

    async fn put_batch(&self, batch: Item) -> Result<Answer, StoreError> {
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(batch))
            .condition_expression(ABSENT)
            .expression_attribute_names("#p", "p")
            .return_values_on_condition_check_failure(OnFailure::AllOld)
            .customize()
            .config_override(self.once())
            .send()
            .await;
        let error = match put {
            Ok(_) => return Ok(Answer::Created),
            Err(error) => error,
        };
        match error.as_service_error() {
            Some(PutItemError::ConditionalCheckFailedException(failed)) => {
                Ok(failed.item().map_or(Answer::FoundSomething, |found| Answer::Found(found.clone())))
            }
            _ => Answer::failed(error),
        }
    }

    /// The batch, and its change to the row: both or neither (rule F5).
    async fn transact(&self, run: &RunKey, batch: Item, entry: &Entry) -> Result<Answer, StoreError> {
        let put = |item: Item| {
            Put::builder()
                .table_name(&self.table)
                .set_item(Some(item))
                .condition_expression(ABSENT)
                .expression_attribute_names("#p", "p")
                .return_values_on_condition_check_failure(OnFailure::AllOld)
                .build()
                .map(|put| TransactWriteItem::builder().put(put).build())
        };
        let row = match entry {
            Entry::Open(opening) => put(item::opened(run, opening)),
            Entry::Append(_, update) => {
                let (expression, names, values) = Amendment::of(run, update).expression();
                Update::builder()
                    .table_name(&self.table)
                    .set_key(Some(item::key(keys::partition(&run.workflow), keys::row(run.ordinal))))
                    .update_expression(expression)
                    .condition_expression(RUN_IS_THERE)
                    .set_expression_attribute_names(Some(names))
                    .expression_attribute_names("#p", "p")
                    .expression_attribute_names("#retired", "retired")
                    .set_expression_attribute_values(Some(values))
                    .build()
                    .map(|update| TransactWriteItem::builder().update(update).build())
            }
        };
        let built = |error: aws_sdk_dynamodb::error::BuildError| StoreError::Refused(Cause::of(error));
        let sent = self
            .client
            .transact_write_items()
            .transact_items(put(batch).map_err(built)?)
            .transact_items(row.map_err(built)?)
            .customize()
            .config_override(self.once())
            .send()
            .await;
        let error = match sent {
            Ok(_) => return Ok(Answer::Created),
            Err(error) => error,
        };
        match error.as_service_error() {
            Some(TransactWriteItemsError::TransactionCanceledException(canceled)) => {
                canceled_because(canceled.cancellation_reasons())
            }
            _ => Answer::failed(error),
        }
    }

    /// Others were faster: whoever sends again at once meets them again. A pause that differs from theirs.
    async fn give_way(&self, record: &[u8]) {
        let millis = 10 + u64::from(BatchHash::of(record).as_bytes()[0]) / 4;
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    pub(super) async fn swap(
        &self,
        key: &AttemptKey,
        expected: Option<u64>,
        record: Bytes,
    ) -> Result<Swap, StoreError> {
        keys::check(&key.run.workflow)?;
        let (partition, sort) = keys::attempt_address(key);
        let size = attempt_size(&partition, &sort, &record);
        if size > LARGEST_ITEM {
            return Err(StoreError::refused(format!(
                "the attempt record of activity {} of {} needs {size} bytes, DynamoDB takes {LARGEST_ITEM}; let the \
                 activity fail with a shorter message, or give its heartbeat fewer details",
                key.activity, key.run
            )));
        }
        let version = expected.unwrap_or(0).saturating_add(1);
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item::attempt(partition.clone(), sort.clone(), version, &record)))
            .return_values_on_condition_check_failure(OnFailure::AllOld);
        let put = match expected {
            None => put.condition_expression(ABSENT).expression_attribute_names("#p", "p"),
            Some(expected) => put
                .condition_expression("#version = :expected")
                .expression_attribute_names("#version", "version")
                .expression_attribute_values(":expected", number(expected)),
        };
        let error = match put.customize().config_override(self.once()).send().await {
            Ok(_) => return Ok(Swap::Done(version)),
            Err(error) => error,
        };
        match error.as_service_error() {
            Some(PutItemError::ConditionalCheckFailedException(failed)) => {
                let found = match failed.item() {
                    Some(found) => Some(found.clone()),
                    // None is there, or an emulator keeps it to itself.
                    None => self.get(partition, sort).await?,
                };
                found.map(item::versioned).transpose().map(Swap::Stale)
            }
            Some(service) if fault::is_busy(service.meta().code()) => {
                self.give_way(&record).await;
                Err(fault::failed(error))
            }
            _ => Err(fault::failed(error)),
        }
    }

    /// A closed run that owes nothing moves to the agenda of retention.
    pub(super) async fn settle(&self, run: &RunKey) -> Result<(), StoreError> {
        keys::check(&run.workflow)?;
        let (closed, _) = keys::agenda(keys::Agenda::Closed, dormouse_core::Timestamp::default(), run);
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(item::key(keys::partition(&run.workflow), keys::row(run.ordinal))))
            .update_expression("SET #dp = :closed, #ds = #cs REMOVE #due")
            .condition_expression(format!("{RUN_IS_THERE} AND attribute_exists(#closed_at)"))
            .expression_attribute_names("#p", "p")
            .expression_attribute_names("#retired", "retired")
            .expression_attribute_names("#closed_at", "closed_at")
            .expression_attribute_names("#due", "due")
            .expression_attribute_names("#dp", "dp")
            .expression_attribute_names("#ds", "ds")
            .expression_attribute_names("#cs", "cs")
            .expression_attribute_values(":closed", text(closed))
            .customize()
            .config_override(self.once())
            .send()
            .await;
        match update {
            Ok(_) => Ok(()),
            Err(error) if refused_by_condition(error.as_service_error()) => match self.row(run).await? {
                // It is open.
                Some(_) => Ok(()),
                None => Err(no_run(run)),
            },
            Err(error) => Err(fault::failed(error)),
        }
    }

    pub(super) async fn park(&self, run: &RunKey, parked: Option<Parked>) -> Result<(), StoreError> {
        keys::check(&run.workflow)?;
        let mut amendment = Amendment::default();
        match parked {
            None => amendment.remove.extend(["parked", "pp", "ps"]),
            Some(mut parked) => {
                let end = (0..=LARGEST_REASON).rev().find(|end| parked.reason.is_char_boundary(*end));
                parked.reason.truncate(end.unwrap_or(0));
                let json = serde_json::to_string(&parked).map_err(|error| StoreError::Refused(Cause::of(error)))?;
                amendment.set.extend([("parked", text(json)), ("pp", text(keys::parked(run)))]);
                amendment.copy = Some(("ps", "ls"));
            }
        }
        let (expression, names, values) = amendment.expression();
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(item::key(keys::partition(&run.workflow), keys::row(run.ordinal))))
            .update_expression(expression)
            .condition_expression(RUN_IS_THERE)
            .set_expression_attribute_names(Some(names))
            .expression_attribute_names("#p", "p")
            .expression_attribute_names("#retired", "retired")
            .set_expression_attribute_values(Some(values).filter(|values| !values.is_empty()))
            .customize()
            .config_override(self.once())
            .send()
            .await;
        match update {
            Ok(_) => Ok(()),
            Err(error) if refused_by_condition(error.as_service_error()) => Err(no_run(run)),
            Err(error) => Err(fault::failed(error)),
        }
    }
}

/// What became of one attempt to create a batch.
#[derive(Debug, PartialEq)]
enum Answer {
    Created,
    /// This stands there.
    Found(Item),
    /// Something stands there, and the answer does not say what.
    FoundSomething,
    /// There is no row to change.
    NoRun,
    /// Nothing was written: others were in the way.
    Busy(String),
}

impl Answer {
    /// What an error means that says nothing of the batch or the row.
    fn failed<E>(error: SdkError<E>) -> Result<Self, StoreError>
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        let busy = fault::is_busy(error.code());
        let error = fault::failed(error);
        if busy { Ok(Self::Busy(error.to_string())) } else { Err(error) }
    }
}

/// The reasons are in the order of the requests: the batch, the row.
fn canceled_because(reasons: &[CancellationReason]) -> Result<Answer, StoreError> {
    const FAILED: Option<&str> = Some("ConditionalCheckFailed");
    let [batch, row] = reasons else {
        return Ok(Answer::FoundSomething);
    };
    if batch.code() == FAILED {
        return Ok(batch.item().map_or(Answer::FoundSomething, |found| Answer::Found(found.clone())));
    }
    let why = |reason: &CancellationReason| {
        format!("DynamoDB: {}: {}", reason.code().unwrap_or("None"), reason.message().unwrap_or("without a message"))
    };
    if let Some(busy) = [batch, row].into_iter().find(|reason| fault::is_busy(reason.code())) {
        return Ok(Answer::Busy(why(busy)));
    }
    if row.code() == FAILED {
        return Ok(Answer::NoRun);
    }
    let refusals = ["ValidationError", "ItemCollectionSizeLimitExceeded"];
    if let Some(refused) =
        [batch, row].into_iter().find(|reason| reason.code().is_some_and(|code| refusals.contains(&code)))
    {
        return Err(StoreError::refused(why(refused)));
    }
    Err(StoreError::unknown(format!("DynamoDB canceled the transaction: {}; {}", why(batch), why(row))))
}

/// About how many bytes of an item an attempt record takes.
fn attempt_size(partition: &str, sort: &str, record: &[u8]) -> usize {
    partition.len() + sort.len() + record.len() + ATTEMPT_OVERHEAD
}

fn refused_by_condition(error: Option<&UpdateItemError>) -> bool {
    error.is_some_and(UpdateItemError::is_conditional_check_failed_exception)
}

fn no_run(run: &RunKey) -> StoreError {
    StoreError::refused(format!("there is no run {run}"))
}

#[cfg(test)]
mod tests {
    use dormouse_core::{Failure, MAX_FAILURE_BYTES, MAX_HEARTBEAT_BYTES, MAX_ID_BYTES, Payload, WorkflowKey};
    use dormouse_engine::attempts::{AttemptRecord, AttemptState};

    use super::*;

    /// The longest failure beside the longest heartbeat, of the run with the longest name: in one item.
    #[test]
    fn the_longest_attempt_record_fits_an_item() {
        let id = "\u{1F42D}".repeat(MAX_ID_BYTES / 4);
        let key = AttemptKey { run: WorkflowKey::new(&id, &id).unwrap().run(u64::MAX), activity: u64::MAX };
        let failure = Failure::application("\u{1b}".repeat(MAX_FAILURE_BYTES - 200)).storable();
        let record = AttemptRecord {
            attempt: u32::MAX,
            state: AttemptState::Waiting { retry_at_ms: u64::MAX, epoch: u64::MAX },
            last_failure: Some(failure),
            heartbeat: Some(Payload::encode(&"x".repeat(MAX_HEARTBEAT_BYTES - 2)).unwrap()),
            cancel_requested: true,
        };
        let (partition, sort) = keys::attempt_address(&key);
        let size = attempt_size(&partition, &sort, &serde_json::to_vec(&record).unwrap());
        assert!(size <= LARGEST_ITEM, "{size} bytes");
        assert!(size > MAX_HEARTBEAT_BYTES, "{size} bytes");
    }
}
