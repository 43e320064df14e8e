//! Requests whose id was used before: the same again gets the first answer, another one is refused.
//!
//! What can be held against each other is what histories keep: of a start its type and input, of a signal its name and
//! argument, of a request to stop its reason. Of a start that joined an open run they keep the id alone; policies are
//! kept of none. A repeat comes soon after the first, so what lies further back than [`RECENT`] batches is not looked at: such
//! a repeat gets the first answer, whatever it asks for.

use dormouse_core::history::{Batch, Event, Input, Turn};
use dormouse_core::operations::Call;
use dormouse_core::{Arrival, Payload, RunState, TurnFailure};

use crate::commit::LoadError;
use crate::error::ApiError;
use crate::store::Store;

/// So many of the last batches are looked at: on an object store each is a request.
const RECENT: u64 = 16;

/// The answer to a start whose id this run knows: whether it began the run, or joined it.
///
/// # Errors
/// [`ApiError::KeyReused`] when another request had the id.
pub(crate) async fn began(
    store: &dyn Store,
    state: &RunState,
    request_id: &str,
    call: &Call,
) -> Result<bool, ApiError> {
    let known = &state.started;
    if known.request_id == request_id {
        let same = known.call.workflow_type == call.workflow_type && says_the_same(&known.call.input, &call.input);
        let shown = || format!("a start of workflow type {:?}", known.call.workflow_type);
        return if same { Ok(true) } else { Err(reused(request_id, &shown())) };
    }
    match recorded(store, state, request_id).await? {
        Some(Input::Joined(_)) | None => Ok(false),
        Some(other) => Err(reused(request_id, &shown(&other))),
    }
}

/// That this arrival, whose id this run knows, is the one that it took in.
///
/// # Errors
/// [`ApiError::KeyReused`] when it is not.
pub(crate) async fn arrived(store: &dyn Store, state: &RunState, arrival: &Arrival) -> Result<(), ApiError> {
    let Some(request_id) = arrival.request_id() else { return Ok(()) };
    let Some(input) = recorded(store, state, request_id).await? else { return Ok(()) };
    let same = match (arrival, &input) {
        (Arrival::Signal(now), Input::Signaled(then)) => {
            now.name == then.name && says_the_same(&now.payload, &then.payload)
        }
        (Arrival::Cancel(now), Input::CancelRequested(then)) => now.reason == then.reason,
        (Arrival::Terminate(now), Input::Terminated(then)) => now.reason == then.reason,
        _ => false,
    };
    if same { Ok(()) } else { Err(reused(request_id, &shown(&input))) }
}

/// What this run has recorded under the request id, if that can still be told.
async fn recorded(store: &dyn Store, state: &RunState, request_id: &str) -> Result<Option<Input>, LoadError> {
    let mut sequence = state.next_sequence.saturating_sub(RECENT);
    while sequence < state.next_sequence {
        let records = store.read(&state.run, sequence).await?.records;
        if records.is_empty() {
            break;
        }
        for record in records {
            let batch = Batch::decode(sequence, &record).map_err(TurnFailure::from)?;
            sequence += 1;
            for event in batch.events {
                if let Event::Input(input) | Event::Turn(Turn { input: Some(input), .. }) = event
                    && input.request_id() == Some(request_id)
                {
                    return Ok(Some(input));
                }
            }
        }
    }
    Ok(None)
}

/// Whether two texts say the same: whoever makes a request anew may order its keys otherwise.
fn says_the_same(one: &Payload, other: &Payload) -> bool {
    one == other || one.to_value() == other.to_value()
}

fn shown(input: &Input) -> String {
    match input {
        Input::Started(started) => format!("a start of workflow type {:?}", started.call.workflow_type),
        Input::Joined(_) => "a start that joined this run".into(),
        Input::Signaled(signal) => format!("signal {:?}", signal.name),
        Input::CancelRequested(_) => "a request to cancel".into(),
        Input::Terminated(_) => "a request to terminate".into(),
        _ => "something else".into(),
    }
}

fn reused(request_id: &str, what: &str) -> ApiError {
    ApiError::KeyReused(format!(
        "the Idempotency-Key {request_id:?} was used before, for {what}, and this request is not the same; give each \
         request a key of its own"
    ))
}
