//! Reads by key, all consistent.

use std::collections::VecDeque;

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use dormouse_core::{RunKey, WorkflowKey};
use futures::StreamExt;

use super::item::{self, Item, Pointer, RowItem, Stored, text, text_of};
use super::{Inner, fault, keys};
use dormouse_engine::store::{AttemptKey, Newest, RunRow, StoreError, Stretch, Versioned};

/// A page of history ends with the batch that reaches this, objects included. DynamoDB's own pages are as large.
const PAGE_BYTES: u64 = 1 << 20;

/// Objects fetched at a time.
const CONCURRENT_GETS: usize = 8;

/// One page of a query, and where it goes on.
pub(super) struct Page {
    pub(super) items: Vec<Item>,
    pub(super) last: Option<Item>,
}

/// Which items of a partition of the table.
pub(super) struct Span<'a> {
    pub(super) partition: &'a str,
    /// The first and the last sort key, both included.
    pub(super) from: String,
    pub(super) to: String,
    pub(super) forward: bool,
    pub(super) limit: Option<i32>,
    /// Only the keys.
    pub(super) keys_only: bool,
}

impl Inner {
    pub(super) async fn get(&self, partition: String, sort: String) -> Result<Option<Item>, StoreError> {
        let found = self
            .client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(item::key(partition, sort)))
            .consistent_read(true)
            .send()
            .await
            .map_err(fault::failed)?;
        Ok(found.item)
    }

    pub(super) async fn query(&self, span: Span<'_>) -> Result<Page, StoreError> {
        let mut query = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression("#p = :p AND #s BETWEEN :from AND :to")
            .expression_attribute_names("#p", "p")
            .expression_attribute_names("#s", "s")
            .expression_attribute_values(":p", text(span.partition))
            .expression_attribute_values(":from", AttributeValue::S(span.from))
            .expression_attribute_values(":to", AttributeValue::S(span.to))
            .scan_index_forward(span.forward)
            .set_limit(span.limit)
            .consistent_read(true);
        if span.keys_only {
            query = query.projection_expression("#p, #s");
        }
        let page = query.send().await.map_err(fault::failed)?;
        Ok(Page { items: page.items.unwrap_or_default(), last: page.last_evaluated_key })
    }

    pub(super) async fn read(&self, run: &RunKey, from: u64) -> Result<Stretch, StoreError> {
        let partition = keys::partition(&run.workflow);
        let mut gathered = Gathered::from(from);
        loop {
            let page = self
                .query(Span {
                    partition: &partition,
                    from: keys::batch(run.ordinal, gathered.next),
                    to: keys::behind_batches(run.ordinal),
                    forward: true,
                    limit: None,
                    keys_only: false,
                })
                .await?;
            if gathered.take(page) {
                break;
            }
        }
        let Gathered { found, mut more, mut gap, .. } = gathered;
        let mut records = Vec::with_capacity(found.len());
        let mut found =
            futures::stream::iter(found).map(async |stored| self.resolve(stored).await).buffered(CONCURRENT_GETS);
        while let Some(record) = found.next().await {
            let Some(record) = record? else {
                // What stands here cannot be had any more: as good as missing.
                (more, gap) = (false, true);
                break;
            };
            records.push(record);
        }
        Ok(Stretch { records, more, gap })
    }

    async fn resolve(&self, stored: Stored) -> Result<Option<Bytes>, StoreError> {
        match stored {
            Stored::Here(record) => Ok(Some(record)),
            Stored::There(pointer) => self.fetch(&pointer).await,
            Stored::Damaged => Ok(None),
        }
    }

    /// The record that was pointed to; `None` when the object is gone or another.
    pub(super) async fn fetch(&self, pointer: &Pointer) -> Result<Option<Bytes>, StoreError> {
        let record = self.blobs.get(&pointer.object).await?.filter(|record| pointer.fits(record));
        if record.is_none() {
            tracing::error!(object = pointer.object, "a large record is missing, truncated or altered");
        }
        Ok(record)
    }

    pub(super) async fn newest(&self, workflow: &WorkflowKey) -> Result<Newest, StoreError> {
        let partition = keys::partition(workflow);
        let (from, mut to) = keys::everything();
        loop {
            let page = self
                .query(Span {
                    partition: &partition,
                    from: from.clone(),
                    to,
                    forward: false,
                    limit: Some(1),
                    keys_only: false,
                })
                .await?;
            let Some(item) = page.items.first() else { return Ok(Newest::Nothing) };
            let sort = text_of(item, "s").unwrap_or_default();
            let Some(ordinal) = keys::ordinal(sort) else {
                return Err(StoreError::refused(format!("the item {partition:?}, {sort:?} is none of ours")));
            };
            if keys::is_row(sort) {
                return Ok(match item::row(item)? {
                    RowItem::Row(row) => Newest::Run(row),
                    RowItem::Retired => Newest::Retired(ordinal),
                });
            }
            // A batch without a row makes no run: look before it.
            to = keys::before(ordinal);
        }
    }

    pub(super) async fn row(&self, run: &RunKey) -> Result<Option<RunRow>, StoreError> {
        let found = self.get(keys::partition(&run.workflow), keys::row(run.ordinal)).await?;
        match found.as_ref().map(item::row).transpose()? {
            Some(RowItem::Row(row)) => Ok(Some(*row)),
            Some(RowItem::Retired) | None => Ok(None),
        }
    }

    pub(super) async fn attempt(&self, key: &AttemptKey) -> Result<Option<Versioned>, StoreError> {
        let (partition, sort) = keys::attempt_address(key);
        self.get(partition, sort).await?.map(item::versioned).transpose()
    }
}

/// Consecutive batches, gathered from pages.
struct Gathered {
    found: VecDeque<Stored>,
    bytes: u64,
    /// The sequence that comes next.
    next: u64,
    /// The place where a batch was missing when last looked at.
    missing: Option<u64>,
    more: bool,
    gap: bool,
}

impl Gathered {
    fn from(next: u64) -> Self {
        Self { found: VecDeque::new(), bytes: 0, next, missing: None, more: false, gap: false }
    }

    /// Takes a page that begins at `next`. Whether that was enough; otherwise the page from the new `next` on is
    /// wanted.
    fn take(&mut self, page: Page) -> bool {
        for item in page.items {
            if text_of(&item, "s").and_then(keys::sequence) != Some(self.next) {
                // A query is no snapshot: two batches may have been put while it ran, of which it saw only the
                // second. Looked at again, the first is there (rule C4).
                self.gap = self.missing == Some(self.next);
                self.missing = Some(self.next);
                return self.gap;
            }
            let stored = Stored::read(item);
            self.bytes += stored.length();
            self.next += 1;
            self.found.push_back(stored);
            if self.bytes >= PAGE_BYTES {
                self.more = true;
                return true;
            }
        }
        // Without anything found, "more" would lead nowhere.
        self.more = page.last.is_some() && !self.found.is_empty();
        self.more || page.last.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(sequences: impl IntoIterator<Item = u64>, more: bool) -> Page {
        let items = sequences.into_iter().map(|sequence| {
            let mut item = item::key("p".into(), keys::batch(0, sequence));
            Stored::Here(sequence.to_string().into()).write(&mut item);
            item
        });
        Page { items: items.collect(), last: more.then(Item::new) }
    }

    fn records(gathered: &Gathered) -> Vec<Stored> {
        gathered.found.iter().cloned().collect()
    }

    fn stored(sequences: impl IntoIterator<Item = u64>) -> Vec<Stored> {
        sequences.into_iter().map(|sequence| Stored::Here(sequence.to_string().into())).collect()
    }

    #[test]
    fn a_gap_is_looked_at_again() {
        let mut gathered = Gathered::from(3);
        assert!(!gathered.take(page([3, 4, 6, 7], false)), "5 is missing: look again");
        assert_eq!(gathered.next, 5);
        assert!(gathered.take(page([5, 6, 7], false)), "it was only not seen");
        assert_eq!((records(&gathered), gathered.more, gathered.gap), (stored(3..8), false, false));

        let mut gathered = Gathered::from(3);
        assert!(!gathered.take(page([3, 4, 6, 7], true)));
        assert!(gathered.take(page([6, 7], false)), "it is missing");
        assert_eq!((records(&gathered), gathered.more, gathered.gap), (stored(3..5), false, true));
    }

    #[test]
    fn each_place_is_looked_at_again() {
        let mut gathered = Gathered::from(0);
        assert!(!gathered.take(page([0, 2], false)));
        assert!(!gathered.take(page([1, 2, 4], false)));
        assert!(gathered.take(page([3, 4], false)));
        assert_eq!((records(&gathered), gathered.gap), (stored(0..5), false));
    }

    #[test]
    fn a_page_ends_with_dynamodb_s_or_with_ours() {
        let mut gathered = Gathered::from(0);
        assert!(gathered.take(page(0..3, true)) && gathered.more);
        let mut gathered = Gathered::from(0);
        assert!(!gathered.take(page([], true)), "an empty page is no end");
        assert!(gathered.take(page([], false)) && !gathered.more);

        let mut gathered = Gathered::from(0);
        let mut large = page(0..3, false);
        for item in &mut large.items {
            item.remove("record");
            Stored::There(Pointer::to("prefix", 0, &vec![0; 600 << 10])).write(item);
        }
        assert!(gathered.take(large) && gathered.more, "objects count");
        assert_eq!(gathered.found.len(), 2);
    }
}
