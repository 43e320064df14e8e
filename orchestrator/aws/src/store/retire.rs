//! Retention: what is left of closed runs goes, in two steps, so that a crash between any two requests does no harm.
//!
//! **Retired.** The index row of a run that closed long enough ago, and owes nothing, becomes a tombstone: one
//! conditional update. From then on nobody finds the run, and its ordinal stays taken (rule C5).
//!
//! **Deleted**, an hour later, when nobody is left who had found it before (rule C4): attempt records get a date to
//! expire at, objects and batches are deleted, and last the tombstone goes, unless no later run keeps the ordinals:
//! then a small one stays, for good. Until then the tombstone is on an agenda, so whatever was cut off is gone on
//! with.
//!
//! **Attempt records** outlive their run by a year: a task that was late, put off, or taken out of quarantine finds
//! its attempt taken and runs nothing (rule A1). The table's time to live, on `expires`, then deletes them at no cost.

use std::time::Duration;

use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{DeleteRequest, WriteRequest};
use dormouse_core::{RunKey, Status, Timestamp};
use futures::{StreamExt, TryStreamExt};

use super::item::{self, Item, number, text, text_of, time};
use super::keys::{self, Agenda};
use super::read::Span;
use super::{Inner, fault};
use dormouse_engine::store::{Cause, Newest, Retirement, StoreError, check_retention};

/// Longer than anybody reads a run.
const PAUSE: Duration = Duration::from_hours(1);

/// Longer than any message lives, wherever it waits.
const KEEP_ATTEMPTS: Duration = Duration::from_hours(24 * 365);

/// DynamoDB's limit for one batch of writes.
const DELETES: usize = 25;

/// Updates in flight at a time.
const CONCURRENT_UPDATES: usize = 8;

/// How often what DynamoDB left over of a batch of deletes is sent again, each time after a longer pause.
const TRIES: u32 = 6;

impl Inner {
    pub(super) async fn retire(
        &self,
        now: Timestamp,
        retention: Duration,
        limit: usize,
    ) -> Result<Retirement, StoreError> {
        check_retention(retention)?;
        let mut done = Retirement::default();
        let by = now - retention;
        let known = |item: &Item| item::run_of(item).is_some();
        let closed = self.agenda(Agenda::Closed, by, None, limit, known).await?;
        for run in closed.iter().filter_map(item::run_of) {
            done.retired += usize::from(self.entomb(&run, by, now).await?);
        }
        let retired = self.agenda(Agenda::Retired, now, None, limit, known).await?;
        let all = closed.len() < limit && retired.len() < limit;
        for run in retired.iter().filter_map(item::run_of) {
            let left = limit.saturating_sub(done.deleted);
            if left == 0 {
                break;
            }
            match self.delete(&run, now, left).await {
                Ok(deleted) => done.deleted += deleted,
                // It must not keep the others from going.
                Err(error @ StoreError::Refused(_)) => tracing::error!(%run, %error, "a retired run is not deleted"),
                Err(error) => return Err(error),
            }
        }
        done.more = (!all || done.deleted >= limit) && done.retired + done.deleted > 0;
        Ok(done)
    }

    /// Makes a tombstone of a row. `false`: it is none that may go.
    async fn entomb(&self, run: &RunKey, by: Timestamp, now: Timestamp) -> Result<bool, StoreError> {
        let (dp, ds) = keys::agenda(Agenda::Retired, now + PAUSE, run);
        let gone =
            ["run_id", "workflow_type", "status", "started_at", "closed_at", "parked", "lp", "ls", "cs", "pp", "ps"];
        let remove: Vec<_> = gone.map(|name| format!("#{name}")).into();
        let mut update = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(item::key(keys::partition(&run.workflow), keys::row(run.ordinal))))
            .update_expression(format!("SET #retired = :now, #dp = :dp, #ds = :ds REMOVE {}", remove.join(", ")))
            .condition_expression(
                "attribute_exists(#p) AND attribute_not_exists(#retired) AND attribute_not_exists(#due) \
                 AND #status <> :running AND #closed_at <= :by",
            )
            .expression_attribute_values(":now", time(now))
            .expression_attribute_values(":dp", text(dp))
            .expression_attribute_values(":ds", text(ds))
            .expression_attribute_values(":running", text(Status::Running.as_str()))
            .expression_attribute_values(":by", time(by));
        for name in gone.into_iter().chain(["p", "retired", "dp", "ds", "due"]) {
            update = update.expression_attribute_names(format!("#{name}"), name);
        }
        match update.customize().config_override(self.once()).send().await {
            Ok(_) => Ok(true),
            // The index is late: it has gone already, or is owed something.
            Err(error)
                if error.as_service_error().is_some_and(UpdateItemError::is_conditional_check_failed_exception) =>
            {
                Ok(false)
            }
            Err(error) => Err(fault::failed(error)),
        }
    }

    /// Deletes up to `limit` records of a retired run, and last its tombstone. How many there were.
    async fn delete(&self, run: &RunKey, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let mut deleted = self.expire_attempts(run, now + KEEP_ATTEMPTS, limit).await?;
        self.delete_snapshot(run).await?;
        self.blobs.delete_all(&keys::objects(run)).await?;
        let partition = keys::partition(&run.workflow);
        while deleted < limit {
            let page = self
                .query(Span {
                    partition: &partition,
                    from: keys::before(run.ordinal),
                    to: keys::behind_batches(run.ordinal),
                    forward: true,
                    limit: Some(i32::try_from(limit - deleted).unwrap_or(i32::MAX)),
                    keys_only: true,
                })
                .await?;
            let ended = page.last.is_none();
            deleted += page.items.len();
            for items in page.items.chunks(DELETES) {
                self.delete_items(items).await?;
            }
            if ended {
                self.bury(run).await?;
                return Ok(deleted + 1);
            }
        }
        Ok(deleted)
    }

    async fn expire_attempts(&self, run: &RunKey, at: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let seconds = number(at.as_millis() / 1_000);
        let (mut expired, mut last) = (0, None);
        loop {
            let page = self
                .client
                .query()
                .table_name(&self.table)
                .key_condition_expression("#p = :p")
                .filter_expression("attribute_not_exists(#expires)")
                .projection_expression("#p, #s")
                .expression_attribute_names("#p", "p")
                .expression_attribute_names("#s", "s")
                .expression_attribute_names("#expires", "expires")
                .expression_attribute_values(":p", text(keys::attempts(run)))
                .set_exclusive_start_key(last)
                .consistent_read(true)
                .send()
                .await
                .map_err(fault::failed)?;
            let found: Vec<_> = page.items.unwrap_or_default().into_iter().take(limit - expired).collect();
            expired += found.len();
            futures::stream::iter(found)
                .map(|key| {
                    let update = self
                        .client
                        .update_item()
                        .table_name(&self.table)
                        .set_key(Some(key))
                        .update_expression("SET #expires = :at")
                        .expression_attribute_names("#expires", "expires")
                        .expression_attribute_values(":at", seconds.clone());
                    async { update.send().await.map(drop).map_err(fault::failed) }
                })
                .buffer_unordered(CONCURRENT_UPDATES)
                .try_collect::<()>()
                .await?;
            last = page.last_evaluated_key;
            if last.is_none() || expired >= limit {
                return Ok(expired);
            }
        }
    }

    /// Deletes items by their keys. To delete one again does no harm, so the SDK may retry.
    async fn delete_items(&self, items: &[Item]) -> Result<(), StoreError> {
        let mut requests = Vec::with_capacity(items.len());
        for item in items {
            let key = ["p", "s"].map(|name| text_of(item, name).unwrap_or_default().to_owned());
            let [partition, sort] = key;
            let request = DeleteRequest::builder().set_key(Some(item::key(partition, sort))).build();
            let request = request.map_err(|error| StoreError::Refused(Cause::of(error)))?;
            requests.push(WriteRequest::builder().delete_request(request).build());
        }
        let mut pause = Duration::from_millis(20);
        for _ in 0..TRIES {
            if requests.is_empty() {
                return Ok(());
            }
            let sent = self.client.batch_write_item().request_items(&self.table, requests).send().await;
            requests = sent
                .map_err(fault::failed)?
                .unprocessed_items
                .unwrap_or_default()
                .remove(&self.table)
                .unwrap_or_default();
            if !requests.is_empty() {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
        match requests.len() {
            0 => Ok(()),
            left => Err(StoreError::unknown(format!("DynamoDB is too busy to delete {left} items"))),
        }
    }

    /// Everything else is gone: the tombstone goes too, or stays as the last that keeps the ordinals.
    async fn bury(&self, run: &RunKey) -> Result<(), StoreError> {
        // The one before may have been left standing, as the last at its time.
        if let Some(before) = run.ordinal.checked_sub(1) {
            self.drop_tombstone(run, before, "attribute_exists(#retired) AND attribute_not_exists(#dp)").await?;
        }
        let newest = match self.newest(&run.workflow).await? {
            Newest::Nothing => return Ok(()),
            Newest::Run(row) => row.run.ordinal,
            Newest::Retired(ordinal) => ordinal,
        };
        if newest > run.ordinal {
            return self.drop_tombstone(run, run.ordinal, "attribute_exists(#retired) AND attribute_exists(#dp)").await;
        }
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(item::key(keys::partition(&run.workflow), keys::row(run.ordinal))))
            .update_expression("REMOVE #dp, #ds, #namespace, #workflow_id, #ordinal")
            .condition_expression("attribute_exists(#retired)")
            .expression_attribute_names("#retired", "retired")
            .expression_attribute_names("#dp", "dp")
            .expression_attribute_names("#ds", "ds")
            .expression_attribute_names("#namespace", "namespace")
            .expression_attribute_names("#workflow_id", "workflow_id")
            .expression_attribute_names("#ordinal", "ordinal")
            .customize()
            .config_override(self.once())
            .send()
            .await;
        match update {
            Ok(_) => Ok(()),
            // Another sweep was faster.
            Err(error)
                if error.as_service_error().is_some_and(UpdateItemError::is_conditional_check_failed_exception) =>
            {
                Ok(())
            }
            Err(error) => Err(fault::failed(error)),
        }
    }

    async fn drop_tombstone(&self, run: &RunKey, ordinal: u64, condition: &str) -> Result<(), StoreError> {
        let delete = self
            .client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(item::key(keys::partition(&run.workflow), keys::row(ordinal))))
            .condition_expression(condition)
            .expression_attribute_names("#retired", "retired")
            .expression_attribute_names("#dp", "dp")
            .customize()
            .config_override(self.once())
            .send()
            .await;
        match delete {
            Ok(_) => Ok(()),
            Err(error)
                if error.as_service_error().is_some_and(DeleteItemError::is_conditional_check_failed_exception) =>
            {
                Ok(())
            }
            Err(error) => Err(fault::failed(error)),
        }
    }
}
