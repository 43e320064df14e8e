//! Whoever has begun to wait goes on while the server is away: it restarts, and has lost nothing.

use std::time::Duration;

use dormouse_core::api::ResultBody;
use tokio::time::Instant;

use crate::error::ClientError;

/// A server that is away for so long is given up by whoever waits without a limit of his own.
const SILENCE: Duration = Duration::from_mins(5);

/// The pause before the server is asked again.
const PAUSE: Duration = Duration::from_millis(500);

/// Patience with a server, once it has been there.
#[derive(Debug, Default)]
pub struct Patience {
    ends: Option<Instant>,
    /// It has answered, or was seen to be there.
    met: bool,
    away_since: Option<Instant>,
}

impl Patience {
    /// Until this time; without it, until the server has been away for five minutes.
    #[must_use]
    pub fn until(ends: Option<Instant>) -> Self {
        Self { ends, ..Self::default() }
    }

    /// The same with a server that has been there before.
    pub(crate) fn once_met(self, met: bool) -> Self {
        Self { met, ..self }
    }

    /// The server has answered: its next absence is a new one.
    pub fn answered(&mut self) {
        self.met = true;
        if self.away_since.take().is_some() {
            tracing::warn!("the server is there again");
        }
    }

    /// Waits a moment for a server that is away.
    ///
    /// # Errors
    /// The error itself, where waiting does not help: it is another one, the server was never there, or it is time.
    pub async fn bear(&mut self, error: ClientError) -> Result<(), ClientError> {
        let ClientError::Transport { reached, .. } = error else { return Err(error) };
        self.met |= reached;
        let now = Instant::now();
        let since = *self.away_since.get_or_insert(now);
        let ends = self.ends.unwrap_or(since + SILENCE);
        if !self.met || now >= ends {
            return Err(error);
        }
        if since == now {
            tracing::warn!(%error, "waiting on: what was begun goes on when the server is there again");
        }
        tokio::time::sleep(PAUSE.min(ends - now)).await;
        Ok(())
    }

    /// The answer to a request that waits; `None`: ask again.
    pub(crate) async fn with(
        &mut self,
        answer: Result<ResultBody, ClientError>,
    ) -> Result<Option<ResultBody>, ClientError> {
        match answer {
            Ok(answer) => {
                self.answered();
                Ok(Some(answer))
            }
            Err(error) => self.bear(error).await.map(|()| None),
        }
    }
}
