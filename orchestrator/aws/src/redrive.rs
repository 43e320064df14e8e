//! Redrive: dead letters are sent again, each to the queue that it was meant for, and leave the quarantine. And what else
//! people do with them: they look at one, or throw it away.
//!
//! First sent, then removed: should we die in between, or should an answer be lost, the letter is still there, and is
//! sent twice. That is what queues do anyway, and the history makes it harmless. A letter travels as it came, byte for
//! byte, so that what a task may still do (`not_after`) is not prolonged.
//!
//! Each letter costs a send, a delete of its item and a look for its object; one by name a read, too.

use dormouse_core::Timestamp;
use dormouse_core::api::{Discarded, DiscardedLetterBody, LetterBody, LetterShownBody, Redriven, RedrivenLetterBody};

use crate::on;
use crate::quarantine::{Letter, Quarantine, place_of};
use crate::queues::route::Route;
use crate::queues::{DEFAULT_TASK_QUEUE, Queues, ReceiveError};
use crate::wire::{Message, Task, WireError, decode, is_of_workers};
use dormouse_engine::seams::{Letters, Redrive, SeamFuture};
use dormouse_engine::store::StoreError;

/// Letters in a page, with their bodies in memory meanwhile.
const MOST_LISTED: usize = 100;

/// Letters that one request sends again: it must be answered within half a minute.
const MOST_SENT: usize = 50;

/// So much of a message is shown: its answer must pass through a gateway.
const MOST_SHOWN: usize = 1 << 20;

/// Where a letter is sent, if it may be sent at all.
///
/// # Errors
/// Why it stays, for people.
pub fn route(letter: &Letter, message: &Result<Message, WireError>, now: Timestamp) -> Result<Route, String> {
    if !letter.is_fresh(now) {
        return Err(
            "it is older than 14 days, and may speak of what is gone; the sweep hands out again whatever its run \
                    still needs"
                .into(),
        );
    }
    match message {
        Err(error) => Err(format!("it cannot be read, so nobody knows where it belongs: {error}")),
        Ok(Message::Run(message)) if letter.untrusted && !is_of_workers(message) => Err(
            "its sender may tell runs outcomes of activities, and nothing else: it is never sent; look at it, and throw \
             it away"
                .into(),
        ),
        Ok(Message::Run(message)) => Ok(Route::Runs { group: crate::wire::group(&message.run().workflow) }),
        Ok(Message::Task(Task { not_after, .. })) if now > *not_after => {
            Err(format!("its task may not be run after {not_after}; the sweep hands out a new one if its run needs it"))
        }
        Ok(Message::Task(Task { task, .. })) => {
            let queue = task.options.task_queue.clone().unwrap_or_else(|| DEFAULT_TASK_QUEUE.to_owned());
            Ok(Route::Tasks { queue })
        }
        Ok(Message::Alarm(_) | Message::Deferred(_)) => Ok(Route::Alarms),
        Ok(Message::Stored(_)) => Err("it points to a message that was never fetched".into()),
    }
}

/// A letter without what it says.
#[must_use]
pub fn summary(letter: &Letter) -> LetterBody {
    let run = match letter.body.as_deref().map(decode) {
        Some(Ok(Message::Run(message))) => Some(message.run().clone()),
        Some(Ok(Message::Task(task))) => Some(task.task.run),
        Some(Ok(Message::Alarm(alarm))) => Some(alarm.run),
        Some(Ok(Message::Deferred(deferred))) => match decode(&deferred.body) {
            Ok(Message::Task(task)) => Some(task.task.run),
            _ => None,
        },
        Some(Ok(Message::Stored(_)) | Err(_)) | None => None,
    };
    LetterBody {
        id: letter.name(),
        queue: letter.queue.clone(),
        received_at: letter.received_at,
        reason: letter.reason.clone(),
        workflow_id: run.as_ref().map(|run| run.workflow.workflow_id.to_string()),
        ordinal: run.map(|run| run.ordinal),
        size: letter.body.as_ref().map(|body| body.len() as u64),
    }
}

/// The seam [`Redrive`] on AWS. Cloning is cheap.
#[derive(Clone)]
pub struct Redriver {
    quarantine: Quarantine,
    queues: Queues,
}

impl Redriver {
    /// What is in this quarantine goes to these queues.
    #[must_use]
    pub fn new(quarantine: Quarantine, queues: Queues) -> Self {
        Self { quarantine, queues }
    }

    async fn page(&self, after: Option<&str>, limit: usize) -> Result<Letters<Letter>, StoreError> {
        let mut letters = self.quarantine.list(limit + 1, after).await?;
        let more = letters.len() > limit;
        letters.truncate(limit);
        let next = letters.last().filter(|_| more).map(Letter::place);
        Ok((letters, next))
    }

    /// Where a letter is to be sent; or why it never will be.
    async fn way<'a>(&self, letter: &'a Letter) -> Result<Result<(Route, &'a str), String>, StoreError> {
        let Some(body) = letter.body.as_deref() else { return Ok(Err("its message is lost".into())) };
        let message = match self.queues.receive(body).await {
            Ok(message) => Ok(message),
            Err(ReceiveError::Wire(error)) => Err(error),
            Err(ReceiveError::Store(error)) => return Err(error),
        };
        Ok(route(letter, &message, self.queues.now()).map(|route| (route, body)))
    }

    async fn redriven(&self, letter: &Letter) -> RedrivenLetterBody {
        let id = letter.name();
        let stays = "it stays in quarantine; to send it again is harmless";
        let sent = match self.way(letter).await {
            Ok(Ok((route, body))) => self.queues.send_again(&route, body.to_owned()).await.map(|()| Ok(route)),
            Ok(Err(why)) => Ok(Err(why)),
            Err(error) => Err(error),
        };
        let (outcome, detail) = match sent {
            Err(StoreError::Refused(why)) => (Redriven::Refused, why.to_string()),
            Err(StoreError::Unknown(why)) => (Redriven::Unknown, format!("{why}; {stays}")),
            Ok(Err(why)) => (Redriven::Unsendable, why),
            Ok(Ok(route)) => match self.quarantine.remove(&letter.place()).await {
                Ok(()) => (Redriven::Sent, format!("to {route}")),
                Err(error) => {
                    (Redriven::Unknown, format!("sent to {route}, but perhaps not removed ({error}); {stays}"))
                }
            },
        };
        tracing::info!(letter = id, ?outcome, detail, "redriven");
        RedrivenLetterBody { id, outcome, detail }
    }

    async fn redriven_by_name(&self, id: String) -> RedrivenLetterBody {
        let refused = |id| RedrivenLetterBody {
            id,
            outcome: Redriven::Refused,
            detail: "there is no such letter in quarantine; it may have been sent already".into(),
        };
        let Some(place) = place_of(&id) else { return refused(id) };
        match self.quarantine.get(&place).await {
            Ok(Some(letter)) => self.redriven(&letter).await,
            Ok(None) => refused(id),
            Err(error) => RedrivenLetterBody { id, outcome: Redriven::Unknown, detail: error.to_string() },
        }
    }

    async fn shown(&self, id: &str) -> Result<Option<LetterShownBody>, StoreError> {
        let Some(place) = place_of(id) else { return Ok(None) };
        let Some(letter) = self.quarantine.get(&place).await? else { return Ok(None) };
        let (goes_to, stays_because) = match self.way(&letter).await? {
            Ok((route, _)) => (Some(route.to_string()), None),
            Err(why) => (None, Some(why)),
        };
        let message = match letter.body.clone() {
            Some(body) => Some(cut(self.queues.text(&body).await?.unwrap_or(body))),
            None => None,
        };
        Ok(Some(LetterShownBody { letter: summary(&letter), message, goes_to, stays_because }))
    }

    async fn discarded(&self, id: String) -> DiscardedLetterBody {
        let answer = |id, outcome, detail| DiscardedLetterBody { id, outcome, detail };
        let gone = "there is no such letter in quarantine; it may have been sent or thrown away already";
        let Some(place) = place_of(&id) else { return answer(id, Discarded::NotFound, gone.into()) };
        let removed = match self.quarantine.get(&place).await {
            Ok(None) => return answer(id, Discarded::NotFound, gone.into()),
            Ok(Some(letter)) => self.quarantine.remove(&place).await.map(|()| letter),
            Err(error) => Err(error),
        };
        match removed {
            Ok(letter) => {
                tracing::info!(letter = id, reason = letter.reason, "discarded");
                answer(id, Discarded::Discarded, letter.reason)
            }
            Err(error) => answer(id, Discarded::Unknown, error.to_string()),
        }
    }
}

/// A message, no longer than what is shown of it.
fn cut(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(MOST_SHOWN));
    message
}

impl Redrive for Redriver {
    fn list(&self, after: Option<String>, limit: usize) -> SeamFuture<'_, Letters<LetterBody>> {
        let this = self.clone();
        on(&self.queues.0.runtime, async move {
            let (letters, next) = this.page(after.as_deref(), limit.min(MOST_LISTED)).await?;
            Ok((letters.iter().map(summary).collect(), next))
        })
    }

    fn redrive(&self, after: Option<String>) -> SeamFuture<'_, Letters<RedrivenLetterBody>> {
        let this = self.clone();
        on(&self.queues.0.runtime, async move {
            let (letters, next) = this.page(after.as_deref(), MOST_SENT).await?;
            let mut redriven = Vec::with_capacity(letters.len());
            for letter in &letters {
                redriven.push(this.redriven(letter).await);
            }
            Ok((redriven, next))
        })
    }

    fn redrive_these(&self, ids: Vec<String>) -> SeamFuture<'_, Vec<RedrivenLetterBody>> {
        let this = self.clone();
        on(&self.queues.0.runtime, async move {
            let mut redriven = Vec::with_capacity(ids.len());
            for id in ids {
                redriven.push(this.redriven_by_name(id).await);
            }
            Ok(redriven)
        })
    }

    fn show(&self, id: String) -> SeamFuture<'_, Option<LetterShownBody>> {
        let this = self.clone();
        on(&self.queues.0.runtime, async move { this.shown(&id).await })
    }

    fn discard(&self, ids: Vec<String>) -> SeamFuture<'_, Vec<DiscardedLetterBody>> {
        let this = self.clone();
        on(&self.queues.0.runtime, async move {
            let mut discarded = Vec::with_capacity(ids.len());
            for id in ids {
                discarded.push(this.discarded(id).await);
            }
            Ok(discarded)
        })
    }
}
