//! Typed names: a signal or query is declared once, and both sides are checked against it.

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
    Signal<T>
}

typed_name! {
    /// A question to a workflow: answer of type `T`, argument of type `A` (none by default).
    ///
    /// ```
    /// # use dormouse_core::Query;
    /// pub const STATUS: Query<String> = Query::new("status");
    /// ```
    Query<T, A = ()>
}
