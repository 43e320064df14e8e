//! Where in a workflow's source something was asked for.

use std::fmt;
use std::panic::Location;
use std::rc::Rc;

/// A place in a workflow's source. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of Rust.
    Line(&'static Location<'static>),
    /// A place as the program names it.
    Named(Rc<str>),
}

impl Place {
    /// A place as a program of another kind names it: `file:line` is what people expect.
    #[must_use]
    pub fn named(place: &str) -> Self {
        Self::Named(place.into())
    }
}

impl From<&'static Location<'static>> for Place {
    fn from(location: &'static Location<'static>) -> Self {
        Self::Line(location)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(location) => write!(f, "{}:{}", location.file(), location.line()),
            Self::Named(place) => f.write_str(place),
        }
    }
}
