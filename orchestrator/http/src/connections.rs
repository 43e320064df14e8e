//! Connections: so many at a time, and none that is held by half a request.
//!
//! Whoever can reach the server can open connections and say nothing. Each costs a descriptor, and the store needs some
//! too: beyond a bound, further ones wait at the door. One that does not send a whole head in time is closed, also when it
//! has asked before and lingers; bodies have a time of their own (`body.rs`).

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How many connections there may be, and how long one may take to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// At most so many at a time; others wait.
    pub most: usize,
    /// So long a caller may take to send the head of a request, from when it connected or got its last answer.
    pub head_timeout: Duration,
}

impl Connections {
    /// More than these help nobody.
    const MOST: usize = 4096;
    /// Descriptors that are left to the store, to its log, and to what activities open.
    const RESERVE: u64 = 128;
}

impl Default for Connections {
    /// As many as descriptors of this process allow, less a reserve, and 4,096 at most; half a minute each to ask.
    fn default() -> Self {
        let descriptors = rlimit::Resource::NOFILE.get_soft().unwrap_or(1024);
        // Where there are hardly any, half.
        let room = descriptors.saturating_sub(Self::RESERVE).max(descriptors / 2).max(1);
        Self {
            most: usize::try_from(room).unwrap_or(Self::MOST).min(Self::MOST),
            head_timeout: Duration::from_secs(30),
        }
    }
}

/// How often it is said that all places are taken.
const SAY_AGAIN: Duration = Duration::from_mins(1);

/// The first pause after the system gave no connection; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Serves until told to stop, and then until all requests under way are answered.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: Router,
    Connections { most, head_timeout }: Connections,
    stopped: impl Future<Output = ()>,
) {
    let (open, stopping) = (TaskTracker::new(), CancellationToken::new());
    let places = Arc::new(Semaphore::new(most));
    let accept = async {
        let (mut said, mut pause) = (None, FIRST_PAUSE);
        loop {
            let place = place(&places, most, &mut said).await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    pause = FIRST_PAUSE;
                    open.spawn(answer(stream, routes.clone(), head_timeout, stopping.clone(), place));
                }
                Err(error) => {
                    // Out of descriptors, perhaps: those that end make room.
                    tracing::warn!(%error, "a connection could not be taken; trying again in {pause:?}");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = stopped => {}
    }
    drop(listener);
    stopping.cancel();
    open.close();
    open.wait().await;
}

/// A place for one more connection; waits for it, and says so now and then.
async fn place(places: &Arc<Semaphore>, most: usize, said: &mut Option<Instant>) -> Option<OwnedSemaphorePermit> {
    if let Ok(place) = Arc::clone(places).try_acquire_owned() {
        return Some(place);
    }
    if said.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
        *said = Some(Instant::now());
        tracing::warn!(
            most,
            "all connections are taken, and further ones wait; more descriptors (ulimit -n) allow more"
        );
    }
    // It is never closed.
    Arc::clone(places).acquire_owned().await.ok()
}

async fn answer(
    stream: TcpStream,
    routes: Router,
    head_timeout: Duration,
    stopping: CancellationToken,
    _place: Option<OwnedSemaphorePermit>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head_timeout);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended in the midst of a request");
    }
}
