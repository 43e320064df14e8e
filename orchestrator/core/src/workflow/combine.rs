//! `join!` and `select!`: all arms begin first, in the order in which they are written; then that order decides.

/// Awaits all arms together and gives a tuple of their results. Arms may be calls that are not futures yet: all are
/// begun first, in order, so that replays issue the same commands.
///
/// ```
/// # use dormouse_core::{Failure, Workflow, join};
/// # use std::time::Duration;
/// async fn both(cx: Workflow, _: ()) -> Result<(), Failure> {
///     let (first, second) = join!(cx.sleep(Duration::from_secs(1)), cx.sleep(Duration::from_secs(2)));
///     first?;
///     Ok(second?)
/// }
/// ```
#[macro_export]
macro_rules! join {
    ($($arm:expr),+ $(,)?) => {
        $crate::__macros::join!($(::core::future::IntoFuture::into_future($arm)),+)
    };
}

/// Awaits whichever arm is ready first; of several, the one written first. The others are dropped, which cancels
/// their timers; then the winner's block runs.
///
/// ```
/// # use dormouse_core::{Failure, Signal, Workflow, select};
/// # use std::time::Duration;
/// const STOP: Signal<()> = Signal::new("stop");
/// async fn patient(cx: Workflow, _: ()) -> Result<bool, Failure> {
///     select! {
///         stop = cx.signal(STOP) => { stop?; Ok(true) },
///         rest = cx.sleep(Duration::from_secs(60)) => { rest?; Ok(false) },
///     }
/// }
/// ```
#[macro_export]
macro_rules! select {
    // Every arm is pinned: wait. What is ready is wrapped so that its place among the arms can be told afterwards.
    (@wait [$($ready:tt)*] [$($right:tt)*]) => {
        $crate::__macros::select_biased! { $($ready)* }
    };
    (@wait [$($ready:tt)*] [$($right:tt)*] $arm:expr, $($rest:tt)*) => {{
        let mut arm = ::core::pin::pin!($crate::__macros::FutureExt::fuse(
            ::core::future::IntoFuture::into_future($arm)
        ));
        $crate::select!(
            @wait
            [$($ready)* result = arm => $crate::select!(@wrap [$($right)*] $crate::__macros::Either::Left(result)),]
            [$($right)* right]
            $($rest)*
        )
    }};
    (@wrap [] $result:expr) => { $result };
    (@wrap [right $($right:tt)*] $result:expr) => {
        $crate::__macros::Either::Right($crate::select!(@wrap [$($right)*] $result))
    };
    (@run $ready:expr,) => {
        match $ready {
            $crate::__macros::Either::Left(never) | $crate::__macros::Either::Right(never) => {
                let never: ::core::convert::Infallible = never;
                match never {}
            }
        }
    };
    (@run $ready:expr, $result:pat => $body:expr, $($rest:tt)*) => {
        match $ready {
            $crate::__macros::Either::Left($result) => $body,
            $crate::__macros::Either::Right(others) => $crate::select!(@run others, $($rest)*),
        }
    };
    ($($result:pat = $arm:expr => $body:expr),+ $(,)?) => {{
        let ready = $crate::select!(@wait [] [] $($arm,)+);
        $crate::select!(@run ready, $($result => $body,)+)
    }};
}
