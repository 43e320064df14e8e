//! Typed names: a signal, a query or another program's activity is declared once, and whoever uses it is checked
//! against it.

use std::fmt;
use std::marker::PhantomData;

macro_rules! typed_name {
    ($(#[$doc:meta])* $name:ident<$($param:ident $(= $default:ty)?),+>) => {
        $(#[$doc])*
        pub struct $name<$($param $(= $default)?),+> {
            name: &'static str,
            types: PhantomData<fn($($param),+)>,
        }

        impl<$($param),+> $name<$($param),+> {
            /// Declares the name. Write it once, as a constant.
            #[must_use]
            pub const fn new(name: &'static str) -> Self {
                Self { name, types: PhantomData }
            }

            /// The wire name.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                self.name
            }
        }

        impl<$($param),+> Clone for $name<$($param),+> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<$($param),+> Copy for $name<$($param),+> {}

        impl<$($param),+> fmt::Debug for $name<$($param),+> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), self.name)
            }
        }
    };
}

typed_name! {
    /// A message to a running workflow, with an argument of type `T`.
    ///
    /// ```
    /// # use dormouse_core::Signal;
    /// pub const APPROVAL: Signal<bool> = Signal::new("approval");
    /// ```
    ///
    /// Declared with [`App::signal`](crate::App::signal), arguments that do not fit are refused before they are written.
    Signal<T>
}

typed_name! {
    /// A question to a workflow: answer of type `T`, argument of type `A` (none by default).
    ///
    /// ```
    /// # use dormouse_core::Query;
    /// pub const STATUS: Query<String> = Query::new("status");
    /// ```
    ///
    /// Declared with [`App::query`](crate::App::query), arguments that do not fit are refused before any code is asked.
    Query<T, A = ()>
}

typed_name! {
    /// An activity that another program implements, in any language: argument of type `I`, result of type `O`, both as
    /// JSON. It is called like a function, on the task queue that those workers serve.
    ///
    /// ```
    /// # use dormouse_core::{ActivityOptions, Failure, RemoteActivity, Workflow};
    /// # use std::time::Duration;
    /// const RESIZE: RemoteActivity<String, Vec<String>> = RemoteActivity::new("resize");
    /// const PYTHON: ActivityOptions = ActivityOptions::start_to_close(Duration::from_mins(5)).task_queue("python");
    ///
    /// async fn gallery(cx: Workflow, image: String) -> Result<Vec<String>, Failure> {
    ///     cx.activity(RESIZE, &image).options(PYTHON).await
    /// }
    /// ```
    ///
    /// Embedded, as under `dev`, there are no workers of other programs: register a stand-in under the same name
    /// (`App::activity("resize", ..)`), or the call fails with the type `NoSuchWorker`.
    RemoteActivity<I, O>
}
