//! Items of the table, and back.
//!
//! An index row has the attributes `namespace`, `workflow_id`, `ordinal`, `run_id`, `workflow_type`, `status`,
//! `started_at`, `closed_at`, `due` (times are numbers: milliseconds since 1970), `parked` (JSON), the keys of the
//! indexes `lp`, `ls`, `dp`, `ds`, while it is parked and open `pp` and `ps`, and, once closed, `cs`: what `ds` becomes
//! when nothing is owed any more. A row whose run is retired has `retired` instead of all that (see `retire.rs`).

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use dormouse_core::{BatchHash, RunKey, Status, Timestamp, WorkflowKey};

use super::keys::{self, Agenda};
use dormouse_engine::store::{Closing, Opening, Parked, RowUpdate, RunRow, StoreError, Versioned};

pub(super) type Item = HashMap<String, AttributeValue>;

pub(super) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(super) fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

pub(super) fn time(value: Timestamp) -> AttributeValue {
    number(value.as_millis())
}

pub(super) fn key(partition: String, sort: String) -> Item {
    Item::from([("p".into(), text(partition)), ("s".into(), text(sort))])
}

pub(super) fn text_of<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

pub(super) fn number_of(item: &Item, name: &str) -> Option<u64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

fn time_of(item: &Item, name: &str) -> Option<Timestamp> {
    number_of(item, name).map(Timestamp::from_millis)
}

// --- batches ---

/// What an item says of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stored {
    /// The record itself.
    Here(Bytes),
    /// An object in the bucket.
    There(Pointer),
    /// Neither: somebody has tampered with it.
    Damaged,
}

/// Where a large record is, and how to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pointer {
    /// The object's key.
    pub(super) object: String,
    /// The record's length in bytes.
    pub(super) length: u64,
    /// The record's hash.
    pub(super) hash: BatchHash,
}

impl Pointer {
    /// To an object under this prefix that holds the record. Records that differ have different objects, so that a
    /// loser never overwrites what the winner's item points to.
    pub(super) fn to(prefix: &str, sequence: u64, record: &[u8]) -> Self {
        let hash = BatchHash::of(record);
        Self { object: format!("{prefix}/{sequence:020}-{hash}"), length: record.len() as u64, hash }
    }

    /// Whether these bytes are what was pointed to.
    pub(super) fn fits(&self, record: &[u8]) -> bool {
        self.length == record.len() as u64 && self.hash == BatchHash::of(record)
    }
}

impl Stored {
    /// The attributes that say so.
    pub(super) fn write(self, item: &mut Item) {
        match self {
            Self::Here(record) => {
                item.insert("record".into(), AttributeValue::B(Blob::new(record)));
            }
            Self::There(Pointer { object, length, hash }) => {
                item.insert("object".into(), text(object));
                item.insert("length".into(), number(length));
                item.insert("hash".into(), text(hash.to_string()));
            }
            Self::Damaged => {}
        }
    }

    pub(super) fn read(mut item: Item) -> Self {
        if let Some(AttributeValue::B(record)) = item.remove("record") {
            return Self::Here(record.into_inner().into());
        }
        let hash = text_of(&item, "hash").and_then(|hash| hash.parse().ok());
        match (text_of(&item, "object"), number_of(&item, "length"), hash) {
            (Some(object), Some(length), Some(hash)) => {
                Self::There(Pointer { object: object.to_owned(), length, hash })
            }
            _ => Self::Damaged,
        }
    }

    /// About how much reading it brings, in bytes.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Here(record) => record.len() as u64,
            Self::There(pointer) => pointer.length,
            Self::Damaged => 0,
        }
    }
}

// --- index rows ---

/// The row that a run begins with.
pub(super) fn opened(run: &RunKey, opening: &Opening) -> Item {
    let Opening { run_id, workflow_type, started_at, due } = opening;
    let (started_at, due) = (*started_at, *due);
    let mut item = key(keys::partition(&run.workflow), keys::row(run.ordinal));
    let (lp, ls) = keys::started(run, started_at);
    let (dp, ds) = keys::agenda(Agenda::Due, due, run);
    let attributes = [
        ("namespace", text(&*run.workflow.namespace)),
        ("workflow_id", text(&*run.workflow.workflow_id)),
        ("ordinal", number(run.ordinal)),
        ("run_id", text(run_id.to_string())),
        ("workflow_type", text(&**workflow_type)),
        ("status", text(Status::Running.as_str())),
        ("started_at", time(started_at)),
        ("due", time(due)),
        ("lp", text(lp)),
        ("ls", text(ls)),
        ("dp", text(dp)),
        ("ds", text(ds)),
    ];
    item.extend(attributes.map(|(name, value)| (name.to_owned(), value)));
    item
}

/// What an update does to a row: attributes to set, to copy from others, to remove.
#[derive(Debug, Default)]
pub(super) struct Amendment {
    pub(super) set: Vec<(&'static str, AttributeValue)>,
    pub(super) copy: Option<(&'static str, &'static str)>,
    pub(super) remove: Vec<&'static str>,
}

impl Amendment {
    /// What an update does to a row that is there.
    pub(super) fn of(run: &RunKey, update: &RowUpdate) -> Self {
        let mut amendment = Self::default();
        if let Some(Closing { status, closed_at }) = update.closing {
            let (dp, ds) = keys::agenda(Agenda::Closed, closed_at, run);
            amendment.set.extend([
                ("status", text(status.as_str())),
                ("closed_at", time(closed_at)),
                ("cs", text(&*ds)),
            ]);
            // What has ended stands still no more.
            amendment.remove.extend(["pp", "ps"]);
            if update.due.is_none() {
                amendment.set.extend([("dp", text(dp)), ("ds", text(ds))]);
                amendment.remove.push("due");
            }
        }
        if let Some(due) = update.due {
            amendment.due(run, due);
        }
        amendment
    }

    fn due(&mut self, run: &RunKey, due: Timestamp) {
        let (dp, ds) = keys::agenda(Agenda::Due, due, run);
        self.set.extend([("due", time(due)), ("dp", text(dp)), ("ds", text(ds))]);
    }

    /// As an update expression, with its names and values. Every name stands for itself behind a `#`, every value
    /// behind a `:`.
    pub(super) fn expression(self) -> (String, HashMap<String, String>, HashMap<String, AttributeValue>) {
        let mut expression = String::new();
        if !self.set.is_empty() {
            let set = self.set.iter().map(|(name, _)| format!("#{name} = :{name}"));
            let copy = self.copy.iter().map(|(to, from)| format!("#{to} = #{from}"));
            expression = format!("SET {}", set.chain(copy).collect::<Vec<_>>().join(", "));
        }
        if !self.remove.is_empty() {
            let remove: Vec<_> = self.remove.iter().map(|name| format!("#{name}")).collect();
            expression = format!("{expression} REMOVE {}", remove.join(", "));
        }
        let copied = self.copy.iter().flat_map(|(to, from)| [*to, *from]);
        let names = self.set.iter().map(|(name, _)| *name).chain(copied).chain(self.remove);
        let names = names.map(|name| (format!("#{name}"), name.to_owned())).collect();
        let values = self.set.into_iter().map(|(name, value)| (format!(":{name}"), value)).collect();
        (expression, names, values)
    }
}

/// What an item at the place of a row is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum RowItem {
    /// A run's row.
    Row(Box<RunRow>),
    /// What is left of a retired run.
    Retired,
}

/// Reads a row.
///
/// # Errors
/// [`StoreError::Refused`] when it is damaged, or written by a newer build.
pub(super) fn row(item: &Item) -> Result<RowItem, StoreError> {
    if item.contains_key("retired") {
        return Ok(RowItem::Retired);
    }
    read_row(item).map(|row| RowItem::Row(Box::new(row))).ok_or_else(|| {
        let key = ["p", "s"].map(|name| text_of(item, name).unwrap_or_default());
        StoreError::refused(format!("the index row {key:?} cannot be read: it is damaged, or another build's"))
    })
}

/// The run that a row's item is about.
pub(super) fn run_of(item: &Item) -> Option<RunKey> {
    let workflow = WorkflowKey {
        namespace: text_of(item, "namespace")?.into(),
        workflow_id: text_of(item, "workflow_id")?.into(),
    };
    Some(workflow.run(number_of(item, "ordinal")?))
}

fn read_row(item: &Item) -> Option<RunRow> {
    Some(RunRow {
        run: run_of(item)?,
        run_id: text_of(item, "run_id")?.parse().ok()?,
        workflow_type: text_of(item, "workflow_type")?.to_owned(),
        status: Status::stored(text_of(item, "status")?),
        started_at: time_of(item, "started_at")?,
        closed_at: time_of(item, "closed_at"),
        due: time_of(item, "due"),
        parked: text_of(item, "parked").map(Parked::stored),
    })
}

// --- attempt records ---

/// The record as text, as JSON is, so that any language can read it; as bytes when it is none.
pub(super) fn attempt(partition: String, sort: String, version: u64, record: &Bytes) -> Item {
    let mut item = key(partition, sort);
    let record = match std::str::from_utf8(record) {
        Ok(json) => text(json),
        Err(_) => AttributeValue::B(Blob::new(record.clone())),
    };
    item.insert("version".into(), number(version));
    item.insert("record".into(), record);
    item
}

/// # Errors
/// [`StoreError::Refused`] when the item is no attempt record.
pub(super) fn versioned(mut item: Item) -> Result<Versioned, StoreError> {
    let version = number_of(&item, "version");
    match (version, item.remove("record")) {
        (Some(version), Some(AttributeValue::S(json))) => Ok(Versioned { version, record: json.into() }),
        (Some(version), Some(AttributeValue::B(record))) => {
            Ok(Versioned { version, record: record.into_inner().into() })
        }
        _ => {
            let key = ["p", "s"].map(|name| text_of(&item, name).unwrap_or_default());
            Err(StoreError::refused(format!(
                "the attempt record {key:?} is damaged: it needs a number `version` and a text `record`"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use dormouse_core::RunId;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn records_come_back_from_their_items() {
        let pointer = Pointer::to("runs/n/w/0", 7, b"large");
        for stored in [Stored::Here("record".into()), Stored::Here(Bytes::new()), Stored::There(pointer)] {
            let mut item = key("p".into(), "s".into());
            stored.clone().write(&mut item);
            assert_eq!(Stored::read(item), stored);
        }
        assert_eq!(Stored::read(key("p".into(), "s".into())), Stored::Damaged);
    }

    #[test]
    fn a_pointer_knows_its_record() {
        let pointer = Pointer::to("runs/n/w/0", 7, b"large");
        assert!(pointer.fits(b"large"));
        for other in [&b""[..], b"larg", b"Large", b"large "] {
            assert!(!pointer.fits(other));
            assert_ne!(Pointer::to("runs/n/w/0", 7, other).object, pointer.object);
        }
    }

    #[test]
    fn rows_come_back_from_their_items() {
        let run = WorkflowKey::new("n", "w").unwrap().run(3);
        let opening =
            Opening { run_id: RunId::from_bytes([7; 16]), workflow_type: "type".into(), started_at: at(5), due: at(9) };
        let mut item = opened(&run, &opening);
        let parked = Parked {
            reason: "why".into(),
            cause: None,
            build: "b".into(),
            sequence: 2,
            attempts: 1,
            retry_at: at(u64::MAX),
            ends_process: false,
            since: Some(at(3)),
        };
        let expected = RunRow {
            run: run.clone(),
            run_id: RunId::from_bytes([7; 16]),
            workflow_type: "type".into(),
            status: Status::Running,
            started_at: at(5),
            closed_at: None,
            due: Some(at(9)),
            parked: Some(parked.clone()),
        };
        item.insert("parked".into(), text(serde_json::to_string(&parked).unwrap()));
        assert_eq!(row(&item), Ok(RowItem::Row(Box::new(expected))));
        item.insert("status".into(), text("Hibernating"));
        let Ok(RowItem::Row(hibernating)) = row(&item) else { panic!("another build's status is one") };
        assert_eq!(hibernating.status.as_str(), "Hibernating");
        item.insert("run_id".into(), text("no id"));
        assert!(matches!(row(&item), Err(StoreError::Refused(_))), "damaged");
        item.insert("retired".into(), number(1));
        assert_eq!(row(&item), Ok(RowItem::Retired));
    }

    #[test]
    fn an_amendment_names_everything_once() {
        let run = WorkflowKey::new("n", "w").unwrap().run(3);
        let close = RowUpdate::close(Status::Failed, at(5), None);
        let (expression, names, values) = Amendment::of(&run, &close).expression();
        assert_eq!(
            expression,
            "SET #status = :status, #closed_at = :closed_at, #cs = :cs, #dp = :dp, #ds = :ds REMOVE #pp, #ps, #due"
        );
        assert_eq!((names.len(), values.len()), (8, 5));
    }
}
