//! What activities are given to work with.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Tools (clients, pools, paths), one of each type. Cloning is cheap.
#[derive(Clone, Default)]
pub struct Tools(Arc<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>);

impl Tools {
    /// The tool of this type.
    #[must_use]
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.0.get(&TypeId::of::<T>())?.downcast_ref()
    }

    /// Adds a tool. `false`: one of its type was there, and is replaced.
    pub(crate) fn add<T: Send + Sync + 'static>(&mut self, tool: T) -> bool {
        Arc::make_mut(&mut self.0).insert(TypeId::of::<T>(), Arc::new(tool)).is_none()
    }
}

impl fmt::Debug for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tools").field("count", &self.0.len()).finish()
    }
}
