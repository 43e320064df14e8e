//! Calls of workflows, as messages hold them: type and argument.

use dormouse_core::{Call, Payload};

use super::WireError;
use super::json::malformed;

/// Type and argument of a call that has no other terms. Messages hold none, and what they would leave out in silence is
/// refused.
pub(super) fn plain(call: &Call) -> Result<(&str, &Payload), WireError> {
    match call {
        Call {
            workflow_type,
            input,
            parent: None,
            memo: None,
            search_attributes: None,
            limits: None,
            retry: None,
            not_before: None,
        } => Ok((workflow_type, input)),
        Call { workflow_type, .. } => {
            Err(malformed(format_args!("a call of {workflow_type:?} with terms that messages cannot hold")))
        }
    }
}
