//! What verbs share that talk to a server.

use clap::Args;
use dormouse_client::{RawClient, RawHandle};
use dormouse_core::RunId;

use crate::error::CliError;

/// Which server to talk to.
#[derive(Debug, Clone, Args)]
pub struct Remote {
    /// The server's address
    #[arg(long, env = "DORMOUSE_ADDRESS", default_value = "http://127.0.0.1:7780", help_heading = "Shared options")]
    pub address: String,
}

impl Remote {
    /// A client of that server.
    ///
    /// # Errors
    /// The address is none.
    pub fn client(&self) -> Result<RawClient, CliError> {
        // Somebody sits in front of the screen: a server that is not there is reported at once.
        Ok(RawClient::new(&self.address)?.tries(3))
    }
}

/// Which workflow is meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct Which {
    /// The workflow's id
    #[arg(value_name = "ID")]
    pub(crate) workflow_id: String,
    /// One run of it, instead of the latest
    #[arg(long)]
    pub(crate) run_id: Option<RunId>,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

impl Which {
    pub(crate) fn handle(&self) -> Result<RawHandle, CliError> {
        Ok(self.remote.client()?.workflow(&self.workflow_id, self.run_id))
    }
}
