//! Requests with several entries, taken apart: some go on, some are answered here.

use serde_json::{Value, json};

use super::answers::{self, Refusal};
use super::call::Call;
use super::rules::{Action, Rules};

/// A request taken apart.
#[derive(Debug, Default)]
pub(super) struct Split {
    /// What goes on; `None`: nothing does.
    pub(super) on: Option<Value>,
    /// What goes on a second time, as another message.
    pub(super) again: Option<Value>,
    /// What is added to the answer: fields that are lists grow, others are set.
    pub(super) added: Value,
}

/// What becomes of a request whose messages are struck one by one. `None`: no rule wants any.
pub(super) fn by_message(call: &Call, rules: &Rules) -> Option<Result<Split, Refusal>> {
    let actions: Vec<Option<Action>> = call.messages.iter().map(|message| rules.strike_message(message)).collect();
    if actions.iter().all(Option::is_none) {
        return None;
    }
    let Some(entries) = call.body["Entries"].as_array() else {
        return Some(single(call, actions.into_iter().flatten().next()));
    };
    let (mut on, mut again, mut successful, mut failed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (entry, action) in entries.iter().zip(actions) {
        match action {
            Some(Action::Swallow) => {
                let mut answer = answers::sent(entry);
                answer["Id"] = entry["Id"].clone();
                successful.push(answer);
            }
            Some(Action::Refuse(refusal)) => failed.push(refusal.entry(call, &entry["Id"])),
            Some(Action::Double) => {
                again.push(another(entry));
                on.push(entry.clone());
            }
            _ => on.push(entry.clone()),
        }
    }
    let request = |entries: Vec<Value>| (!entries.is_empty()).then(|| with(&call.body, "Entries", entries.into()));
    let added = json!({ "Successful": successful, "Failed": failed });
    Some(Ok(Split { on: request(on), again: request(again), added }))
}

fn single(call: &Call, action: Option<Action>) -> Result<Split, Refusal> {
    match action {
        Some(Action::Swallow) => Ok(Split { added: answers::sent(&call.body), ..Split::default() }),
        Some(Action::Refuse(refusal)) => Err(refusal),
        Some(Action::Double) => Ok(doubled(call)),
        _ => Ok(Split { on: Some(call.body.clone()), again: None, added: Value::Null }),
    }
}

/// A whole request to SQS swallowed. `None`: it sends nothing.
pub(super) fn swallowed(call: &Call) -> Option<Split> {
    let added = match call.body["Entries"].as_array() {
        _ if call.messages.is_empty() => return None,
        None => answers::sent(&call.body),
        Some(entries) => {
            let answer = |entry: &Value| with(&answers::sent(entry), "Id", entry["Id"].clone());
            json!({ "Successful": entries.iter().map(answer).collect::<Vec<_>>(), "Failed": [] })
        }
    };
    Some(Split { on: None, again: None, added })
}

/// A whole request to SQS doubled, as other messages.
pub(super) fn doubled(call: &Call) -> Split {
    let again = match call.body["Entries"].as_array() {
        Some(entries) => with(&call.body, "Entries", entries.iter().map(another).collect()),
        None => another(&call.body),
    };
    Split { on: Some(call.body.clone()), again: Some(again), added: Value::Null }
}

/// A request of which the first entry is refused. `None`: it has no entries.
pub(super) fn partial(call: &Call) -> Option<Split> {
    if let Some(entries) = call.body["Entries"].as_array() {
        let (first, rest) = entries.split_first()?;
        let added = json!({ "Successful": [], "Failed": [Refusal::Internal.entry(call, &first["Id"])] });
        let on = (!rest.is_empty()).then(|| with(&call.body, "Entries", rest.into()));
        return Some(Split { on, again: None, added });
    }
    // DynamoDB: writes by table, or keys by table.
    let (table, requests) = call.body["RequestItems"].as_object()?.iter().next()?;
    let (unprocessed, list, pointer) = match call.kind.operation.as_str() {
        "BatchGetItem" => ("UnprocessedKeys", &requests["Keys"], format!("/RequestItems/{table}/Keys")),
        _ => ("UnprocessedItems", requests, format!("/RequestItems/{table}")),
    };
    let (first, rest) = list.as_array()?.split_first()?;
    let left = match call.kind.operation.as_str() {
        "BatchGetItem" => json!({ table: with(requests, "Keys", json!([first])) }),
        _ => json!({ table: [first] }),
    };
    let mut on = call.body.clone();
    *on.pointer_mut(&pointer)? = rest.into();
    Some(Split { on: (!rest.is_empty()).then_some(on), again: None, added: json!({ unprocessed: left }) })
}

/// Adds what is to be added to an answer.
pub(super) fn join(answer: &mut Value, added: &Value) {
    let Some(added) = added.as_object() else { return };
    for (name, value) in added {
        match (answer[name].as_array_mut(), value) {
            (Some(list), Value::Array(more)) => list.extend(more.iter().cloned()),
            _ => answer[name] = value.clone(),
        }
    }
}

/// The same text as another message: a queue that knows the first by its id would drop a copy.
fn another(entry: &Value) -> Value {
    match entry["MessageDeduplicationId"].as_str() {
        Some(id) => with(entry, "MessageDeduplicationId", format!("{}-again", id.get(..100).unwrap_or(id)).into()),
        None => entry.clone(),
    }
}

fn with(object: &Value, field: &str, value: Value) -> Value {
    let mut object = object.clone();
    object[field] = value;
    object
}
