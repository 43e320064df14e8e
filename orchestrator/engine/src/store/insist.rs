//! Compare and set, as often as it takes: one way for all who do it.

use std::time::Duration;

use futures::future::BoxFuture;

use super::StoreError;

/// How somebody waits: by the host's time, or by a clock of one's own.
pub type Sleep<'a> = &'a (dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync);

/// How patiently a write is sent again whose outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How often it is sent before the caller must decide.
    pub tries: u32,
    /// The first pause between two tries. Each further one is twice as long: a store that throttles needs that.
    pub pause: Duration,
}

impl Patience {
    /// What a caller of the engine waits at most, apart from the tries themselves: 750 ms.
    pub const COMMIT: Self = Self { tries: 5, pause: Duration::from_millis(50) };

    /// Sent once: whoever asked decides.
    pub const NONE: Self = Self { tries: 1, pause: Duration::ZERO };
}

/// So many times another writer may be faster; each time, that one has got on.
const RACES: usize = 1_000;

/// What became of one try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Try<T> {
    /// It is decided.
    Done(T),
    /// Somebody else was faster, and what he left must be looked at: at once.
    Lost,
}

/// Tries until it is decided. An unknown outcome is resolved by trying again, after a pause, with the same bytes: the
/// answer is then either that it is done, or what stands there (rule C1).
///
/// # Errors
/// [`StoreError::Refused`] at once. [`StoreError::Unknown`], the last one, when the outcome still is after all tries.
pub async fn insist<T, F>(
    patience: Patience,
    sleep: Option<Sleep<'_>>,
    mut attempt: impl FnMut() -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<Try<T>, StoreError>>,
{
    let (mut tries, mut races, mut pause) = (1, 0, patience.pause);
    loop {
        match attempt().await {
            Ok(Try::Done(done)) => return Ok(done),
            Ok(Try::Lost) if races < RACES => races += 1,
            Ok(Try::Lost) => return Err(StoreError::unknown(format!("{RACES} others were faster, one after another"))),
            Err(StoreError::Unknown(_)) if tries < patience.tries => {
                tries += 1;
                if let Some(sleep) = sleep {
                    sleep(pause).await;
                }
                pause *= 2;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::FutureExt;
    use futures::executor::block_on;

    use super::*;

    /// What came of it, how often it was tried, and the pauses between.
    fn outcome(answers: Vec<Result<Try<u8>, StoreError>>) -> (Result<u8, StoreError>, usize, Vec<u64>) {
        let (pauses, all) = (Mutex::new(Vec::new()), answers.len());
        let mut answers = answers.into_iter();
        let done = {
            let sleep = |pause: Duration| {
                pauses.lock().unwrap().push(u64::try_from(pause.as_millis()).unwrap());
                std::future::ready(()).boxed()
            };
            // Borrowed for the test alone.
            let sleep: Sleep<'_> = &sleep;
            block_on(insist(Patience::COMMIT, Some(sleep), || {
                std::future::ready(answers.next().expect("one more try"))
            }))
        };
        (done, all - answers.len(), pauses.into_inner().unwrap())
    }

    fn unknown() -> Result<Try<u8>, StoreError> {
        Err(StoreError::unknown("no answer"))
    }

    #[test]
    fn what_is_unknown_is_tried_again_after_longer_and_longer_pauses() {
        let patient = vec![unknown(), unknown(), unknown(), unknown(), Ok(Try::Done(7))];
        assert_eq!(outcome(patient), (Ok(7), 5, vec![50, 100, 200, 400]));
        assert_eq!(outcome(vec![unknown(); 9]), (Err(StoreError::unknown("no answer")), 5, vec![50, 100, 200, 400]));
    }

    #[test]
    fn a_refusal_is_final_and_a_lost_race_is_run_again_at_once() {
        let refused = || Err(StoreError::refused("no"));
        assert_eq!(outcome(vec![refused(), Ok(Try::Done(7))]), (Err(StoreError::refused("no")), 1, vec![]));
        assert_eq!(outcome(vec![Ok(Try::Lost), Ok(Try::Lost), Ok(Try::Done(7))]), (Ok(7), 3, vec![]));
        assert_eq!(outcome(vec![Ok(Try::Lost), unknown(), Ok(Try::Done(7))]), (Ok(7), 3, vec![50]));
        let (given_up, tries, _) = outcome(vec![Ok(Try::Lost); RACES + 1]);
        assert!(matches!(given_up, Err(StoreError::Unknown(_))) && tries == RACES + 1, "{given_up:?}");
    }
}
