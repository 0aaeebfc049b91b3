//! Parsed values, without their type. The table of fields knows the type and restores it.

use std::any::Any;
use std::sync::Arc;

/// A parsed value in a tree: what `Kind::parse` returned.
#[derive(Clone)]
pub(super) struct Leaf(Arc<dyn Any + Send + Sync>);

impl Leaf {
    pub(super) fn new<T: Any + Send + Sync>(value: T) -> Self {
        Self(Arc::new(value))
    }

    /// The value, if it has that type.
    pub(super) fn get<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}
