//! The indexes: listings, agendas, and parked runs. Eventually consistent, as DynamoDB's global indexes are.

use std::collections::VecDeque;

use aws_sdk_dynamodb::types::AttributeValue;
use dormouse_core::{RunKey, Timestamp};
use futures::future::try_join_all;

use super::item::{self, Item, RowItem, text, text_of};
use super::keys::{self, Agenda, SHARDS};
use super::{Inner, fault};
use dormouse_engine::store::{ListCursor, RunFilter, RunRow, StoreError};

/// An index of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Index {
    Start,
    Due,
    /// Open runs that are parked, and no others: it costs nothing while there are none.
    Parked,
}

impl Index {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Start => "by_start",
            Self::Due => "by_due",
            Self::Parked => "by_parked",
        }
    }

    pub(super) fn keys(self) -> (&'static str, &'static str) {
        match self {
            Self::Start => ("lp", "ls"),
            Self::Due => ("dp", "ds"),
            Self::Parked => ("pp", "ps"),
        }
    }
}

/// What is asked of every partition of an index.
struct Search {
    index: Index,
    /// The first and the last sort key, both included.
    from: String,
    to: String,
    /// This one is left out.
    but: Option<String>,
    forward: bool,
    /// Rows read at a time.
    page: i32,
}

/// One partition, read as far as is needed.
struct Shard {
    partition: String,
    ahead: VecDeque<(String, Item)>,
    last: Option<Item>,
    ended: bool,
}

impl Inner {
    /// Up to `limit` items that pass, of all partitions, in the order of their sort keys.
    async fn search(
        &self,
        search: Search,
        partition: impl Fn(u8) -> String,
        limit: usize,
        admits: impl Fn(&Item) -> bool,
    ) -> Result<Vec<Item>, StoreError> {
        let mut found = Vec::new();
        if search.from > search.to {
            return Ok(found);
        }
        let mut shards: Vec<Shard> = (0..SHARDS)
            .map(|shard| Shard { partition: partition(shard), ahead: VecDeque::new(), last: None, ended: false })
            .collect();
        while found.len() < limit {
            let empty = shards.iter_mut().filter(|shard| shard.ahead.is_empty() && !shard.ended);
            try_join_all(empty.map(|shard| self.read_on(&search, shard, &admits))).await?;
            let ahead = shards.iter_mut().filter(|shard| !shard.ahead.is_empty());
            let next = if search.forward {
                ahead.min_by(|a, b| a.ahead[0].0.cmp(&b.ahead[0].0))
            } else {
                ahead.max_by(|a, b| a.ahead[0].0.cmp(&b.ahead[0].0))
            };
            match next.and_then(|shard| shard.ahead.pop_front()) {
                Some((_, item)) => found.push(item),
                None => break,
            }
        }
        Ok(found)
    }

    /// Reads a partition on until something that passes is ahead, or to its end.
    async fn read_on(
        &self,
        search: &Search,
        shard: &mut Shard,
        admits: &impl Fn(&Item) -> bool,
    ) -> Result<(), StoreError> {
        let (partition, sort) = search.index.keys();
        while shard.ahead.is_empty() && !shard.ended {
            let page = self
                .client
                .query()
                .table_name(&self.table)
                .index_name(search.index.name())
                .key_condition_expression("#p = :p AND #s BETWEEN :from AND :to")
                .expression_attribute_names("#p", partition)
                .expression_attribute_names("#s", sort)
                .expression_attribute_values(":p", text(&*shard.partition))
                .expression_attribute_values(":from", AttributeValue::S(search.from.clone()))
                .expression_attribute_values(":to", AttributeValue::S(search.to.clone()))
                .scan_index_forward(search.forward)
                .limit(search.page)
                .set_exclusive_start_key(shard.last.take())
                .send()
                .await
                .map_err(fault::failed)?;
            for item in page.items.unwrap_or_default() {
                let Some(place) = text_of(&item, sort).map(str::to_owned) else { continue };
                if search.but.as_ref() != Some(&place) && admits(&item) {
                    shard.ahead.push_back((place, item));
                }
            }
            shard.ended = page.last_evaluated_key.is_none();
            shard.last = page.last_evaluated_key;
        }
        Ok(())
    }

    pub(super) async fn list(
        &self,
        namespace: &str,
        filter: &RunFilter,
        after: Option<&ListCursor>,
        limit: usize,
    ) -> Result<Vec<RunRow>, StoreError> {
        let (from, to) = keys::everything();
        let but = after.map(keys::cursor);
        let to = but.clone().unwrap_or(to);
        let index = if filter.parked { Index::Parked } else { Index::Start };
        let search = Search { index, from, to, but, forward: false, page: page(limit) };
        let partition = |shard| match filter.parked {
            true => keys::parked_partition(namespace, shard),
            false => keys::start_partition(namespace, shard),
        };
        let admits = |item: &Item| self.readable(item).is_some_and(|row| filter.admits(&row));
        let found = self.search(search, partition, limit, admits).await?;
        Ok(found.iter().filter_map(|item| self.readable(item)).collect())
    }

    pub(super) async fn due(
        &self,
        by: Timestamp,
        after: Option<(Timestamp, RunKey)>,
        limit: usize,
    ) -> Result<Vec<RunRow>, StoreError> {
        let found = self.agenda(Agenda::Due, by, after, limit, |item| self.readable(item).is_some()).await?;
        Ok(found.iter().filter_map(|item| self.readable(item)).collect())
    }

    /// What is on an agenda at or before `by`, earliest first, behind the given place.
    pub(super) async fn agenda(
        &self,
        agenda: Agenda,
        by: Timestamp,
        after: Option<(Timestamp, RunKey)>,
        limit: usize,
        admits: impl Fn(&Item) -> bool,
    ) -> Result<Vec<Item>, StoreError> {
        let (from, _) = keys::everything();
        let but = after.map(|(at, run)| keys::agenda_sort(at, &run));
        let from = but.clone().unwrap_or(from);
        let to = keys::behind(by);
        let search = Search { index: Index::Due, from, to, but, forward: true, page: page(limit) };
        self.search(search, |shard| keys::agenda_partition(agenda, shard), limit, admits).await
    }

    /// The row, unless it cannot be read: one bad row must not hide all others from the sweep.
    fn readable(&self, item: &Item) -> Option<RunRow> {
        match item::row(item) {
            Ok(RowItem::Row(row)) => Some(*row),
            Ok(RowItem::Retired) => None,
            Err(error) => {
                let key = ["p", "s"].map(|name| text_of(item, name).unwrap_or_default()).join(" ");
                self.passed_over.tell(&key, error);
                None
            }
        }
    }
}

/// A partition brings about its share, and a little more.
fn page(limit: usize) -> i32 {
    i32::try_from(limit / usize::from(SHARDS)).map_or(1_000, |share| (share + share / 4 + 2).min(1_000))
}
