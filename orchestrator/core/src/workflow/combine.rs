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
/// their timers. Each arm ends with a comma.
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
    (@arms [$($ready:tt)*]) => {
        $crate::__macros::select_biased! { $($ready)* }
    };
    (@arms [$($ready:tt)*] $result:pat = $arm:expr => $body:expr, $($rest:tt)*) => {{
        let mut arm = ::core::pin::pin!($crate::__macros::FutureExt::fuse(
            ::core::future::IntoFuture::into_future($arm)
        ));
        $crate::select!(@arms [$($ready)* $result = arm => $body,] $($rest)*)
    }};
    ($result:pat = $($arms:tt)+) => {
        $crate::select!(@arms [] $result = $($arms)+)
    };
}
