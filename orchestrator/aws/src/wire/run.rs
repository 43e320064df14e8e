//! The run that a message is about.

use std::borrow::Cow;

use dormouse_core::{RunId, RunKey, WorkflowKey};
use serde::{Deserialize, Serialize};

use super::WireError;
use super::json::malformed;

#[derive(Serialize, Deserialize)]
pub(super) struct Run<'a> {
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    workflow_id: Cow<'a, str>,
    ordinal: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run_id: Option<RunId>,
}

impl<'a> Run<'a> {
    /// Whichever run has this key.
    pub(super) fn any(run: &'a RunKey) -> Self {
        let WorkflowKey { namespace, workflow_id } = &run.workflow;
        Self {
            namespace: (&**namespace).into(),
            workflow_id: (&**workflow_id).into(),
            ordinal: run.ordinal,
            run_id: None,
        }
    }

    /// This run and no other.
    pub(super) fn of(run: &'a RunKey, run_id: RunId) -> Self {
        Self { run_id: Some(run_id), ..Self::any(run) }
    }

    pub(super) fn key(&self) -> Result<RunKey, WireError> {
        let workflow = WorkflowKey::new(&self.namespace, &self.workflow_id).map_err(malformed)?;
        Ok(workflow.run(self.ordinal))
    }

    /// With its identity, which a message of this kind needs.
    pub(super) fn identified(&self, kind: &str) -> Result<(RunKey, RunId), WireError> {
        let run = self.key()?;
        let run_id = self.run_id.ok_or_else(|| malformed(format_args!("{kind:?} without \"run.run_id\"")))?;
        Ok((run, run_id))
    }
}
