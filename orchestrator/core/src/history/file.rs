//! Histories as files: JSON that people read, and that can be replayed.
//!
//! ```json
//! {
//!   "dormouse_history": 1,
//!   "namespace": "default",
//!   "workflow_id": "order-1",
//!   "ordinal": 0,
//!   "run_id": "67e55044-10b1-426f-9247-bb6800000000",
//!   "workflow_type": "orderWorkflow",
//!   "batches": [
//!     {
//!       "record": "AoZQ...",
//!       "events": [ { "event_id": 1, "time": "2026-03-01T09:00:00.000Z", "type": "WorkflowStarted", "attributes": {} } ]
//!     }
//!   ]
//! }
//! ```
//!
//! `record` is a batch as it is stored, in base64: what is replayed, and nothing else is. `events` are what people read in
//! it, as `workflow show --output json` tells them; they, `run_id` and `workflow_type` are not read again, so a file cannot
//! be changed by changing them. Whoever reads leaves fields alone that he does not know; where the meaning of a known one
//! changes, the number in `dormouse_history` grows, and an older build refuses the file.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::event::Event;
use super::record::Batch;
use super::view::readable;
use crate::api::HistoryEvent;
use crate::ids::{InvalidId, RunId, RunKey, WorkflowKey};
use crate::operations::Input;
use crate::record_text::StoredRecord;

/// The number of the form that this build writes.
pub const HISTORY_FILE_FORMAT: u32 = 1;

/// A run's history, as its store holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryFile {
    /// Which run.
    pub run: RunKey,
    /// Its batches, from the first on.
    pub records: Vec<Bytes>,
}

/// Why a text is no history that can be replayed.
#[derive(Debug, thiserror::Error)]
pub enum InvalidHistoryFile {
    /// It is something else.
    #[error("it is no exported history: {0}. `workflow export` writes what can be replayed")]
    NotAHistory(serde_json::Error),
    /// It is what `workflow show` gives.
    #[error(
        "it holds the events of `workflow show --output json`, which people read; a replay needs the recorded batches as \
         well: `workflow export` writes both"
    )]
    EventsAlone,
    /// A newer build wrote it.
    #[error("it is an exported history of format {0}, this build reads up to {HISTORY_FILE_FORMAT}; use a newer build")]
    TooNew(u32),
    /// It names no run.
    #[error(transparent)]
    Id(#[from] InvalidId),
}

#[derive(Serialize)]
struct Written<'a> {
    dormouse_history: u32,
    namespace: &'a str,
    workflow_id: &'a str,
    ordinal: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workflow_type: Option<String>,
    batches: Vec<WrittenBatch>,
}

#[derive(Serialize)]
struct WrittenBatch {
    record: StoredRecord,
    events: Vec<HistoryEvent>,
}

/// What tells the kind of a file.
#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    dormouse_history: Option<u32>,
    #[serde(default)]
    events: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Read {
    namespace: String,
    workflow_id: String,
    ordinal: u64,
    batches: Vec<ReadBatch>,
}

#[derive(Deserialize)]
struct ReadBatch {
    record: StoredRecord,
}

impl HistoryFile {
    /// The file's text. What cannot be read as a batch is written all the same, without events.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut next_id = 1;
        let (mut run_id, mut workflow_type) = (None, None);
        let batches = (0..).zip(&self.records).map(|(sequence, record)| {
            let batch = Batch::decode(sequence, record).ok();
            if let Some(Event::Input(Input::Started(started))) = batch.as_ref().and_then(|batch| batch.events.first()) {
                run_id = Some(started.run_id);
                workflow_type = Some(started.call.workflow_type.clone());
            }
            let events = batch.map_or_else(Vec::new, |batch| readable(&batch, next_id));
            next_id += events.len() as u64;
            WrittenBatch { record: record.clone().into(), events }
        });
        let batches = batches.collect();
        let WorkflowKey { namespace, workflow_id } = &self.run.workflow;
        let written = Written {
            dormouse_history: HISTORY_FILE_FORMAT,
            namespace,
            workflow_id,
            ordinal: self.run.ordinal,
            run_id,
            workflow_type,
            batches,
        };
        match serde_json::to_string_pretty(&written) {
            Ok(text) => text + "\n",
            // Strings, numbers and JSON that was read before.
            Err(error) => unreachable!("a history is written as JSON: {error}"),
        }
    }

    /// Reads a file's text. Whether its records are a history, a replay tells.
    ///
    /// # Errors
    /// [`InvalidHistoryFile`] says what it is instead.
    pub fn from_json(text: &[u8]) -> Result<Self, InvalidHistoryFile> {
        let told: Told = serde_json::from_slice(text).map_err(InvalidHistoryFile::NotAHistory)?;
        match told {
            Told { dormouse_history: Some(format), .. } if format > HISTORY_FILE_FORMAT => {
                return Err(InvalidHistoryFile::TooNew(format));
            }
            Told { dormouse_history: None, events: Some(_) } => return Err(InvalidHistoryFile::EventsAlone),
            Told { dormouse_history: None, events: None } => {
                let missing = serde::de::Error::missing_field("dormouse_history");
                return Err(InvalidHistoryFile::NotAHistory(missing));
            }
            Told { .. } => {}
        }
        let Read { namespace, workflow_id, ordinal, batches } =
            serde_json::from_slice(text).map_err(InvalidHistoryFile::NotAHistory)?;
        let run = WorkflowKey::new(&namespace, &workflow_id)?.run(ordinal);
        Ok(Self { run, records: batches.into_iter().map(|ReadBatch { record }| record.0).collect() })
    }
}
