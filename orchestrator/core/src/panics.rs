//! What panicked, and where: what a panic carries has no place, so the process's panic hook remembers it.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::pin::pin;
use std::sync::Once;
use std::task::Poll;

/// A panic that was caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panic {
    /// What it said.
    pub message: String,
    /// Where in the source, as `file:line:column`. Not known when the program has replaced the panic hook since, and
    /// did not call the former one.
    pub place: Option<String>,
    /// The function that the code called and the application does not have, when that is why. Known where the place is.
    pub unregistered: Option<Unregistered>,
}

/// A function that an application does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unregistered {
    /// What it is: `workflow` or `activity`.
    pub what: &'static str,
    /// The function, as Rust names it.
    pub name: &'static str,
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.place.iter().try_for_each(|place| write!(f, ", at {place}"))
    }
}

thread_local! {
    /// Where this thread panicked last.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
    /// For want of which function this thread panicked last.
    static WANTED: Cell<Option<Unregistered>> = const { Cell::new(None) };
    /// On whose behalf this thread is about to panic.
    static BLAMED: RefCell<Option<String>> = const { RefCell::new(None) };
    /// For want of which function this thread is about to panic.
    static WANTING: Cell<Option<Unregistered>> = const { Cell::new(None) };
}

/// Runs code that may panic.
///
/// # Errors
/// The panic. What it leaves behind must not be used any more, as after
/// [`catch_unwind`](std::panic::catch_unwind).
pub fn catch<T>(code: impl FnOnce() -> T) -> Result<T, Panic> {
    listen();
    // One that goes on unwinding without the hook must not be given the place of another.
    PLACE.take();
    WANTED.take();
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| Panic {
        message: said(&*payload),
        place: PLACE.take(),
        unregistered: WANTED.take(),
    })
}

/// Polls a future that may panic.
///
/// # Errors
/// As [`catch`].
pub async fn catch_async<T>(future: impl Future<Output = T>) -> Result<T, Panic> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| match catch(|| future.as_mut().poll(context)) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

/// Panics for what the code at this place has done. A line of this crate would send people to the wrong house.
pub(crate) fn blame(place: &impl fmt::Display, message: &dyn fmt::Display) -> ! {
    BLAMED.replace(Some(place.to_string()));
    panic!("{message}")
}

/// Panics because the code calls a function that the application does not have. `with` is the method that gives it one.
#[track_caller]
pub(crate) fn not_registered(what: &'static str, name: &'static str, with: &str) -> ! {
    WANTING.set(Some(Unregistered { what, name }));
    panic!("{what} {name} is not registered; add `.{with}(\"...\", ...)` to the App")
}

/// Has the hook remember places, once for the process. The hook that is there is called as before.
fn listen() {
    static LISTEN: Once = Once::new();
    // No hook can be set meanwhile.
    if !std::thread::panicking() {
        LISTEN.call_once(|| {
            let before = take_hook();
            set_hook(Box::new(move |panic| {
                remember(panic);
                before(panic);
            }));
        });
    }
}

fn remember(panic: &PanicHookInfo<'_>) {
    let blamed = BLAMED.try_with(RefCell::take).ok().flatten();
    let place = blamed.or_else(|| panic.location().filter(|place| !is_ours(place)).map(ToString::to_string));
    // A thread that comes to its end has none any more.
    let _ = PLACE.try_with(|last| last.replace(place));
    let _ = WANTED.try_with(|last| last.set(WANTING.try_with(Cell::take).ok().flatten()));
}

/// Whether this is a line of this crate, as where one of its own functions uses `?` for somebody's code.
pub(crate) fn is_ours(place: &Location<'_>) -> bool {
    const OURS: &str = file!();
    place.file().starts_with(&OURS[..OURS.len() - "panics.rs".len()])
}

fn said(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "(a panic without a message)".to_owned())
}
