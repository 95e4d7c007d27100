//! The Python module's native part, `mistralrs._native`: [`mistralrs`] for the Python around it (`crates/python/mistralrs`), which says
//! everything in OpenAI's JSON. An operation is a [`Pending`](pending::Pending), which is waited for with or without `await`.
//!
//! Knows: Python's exceptions, signals and lock; the facade; JSON through `wire`.
//!
//! Must never know: tensors, schedules, what fields of a request mean.

mod answers;
mod environment;
mod failure;
mod load;
mod model;
mod pending;
mod tools;

/// The engine. Everything that is said to it and by it is JSON; the package around it makes Python of that.
#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use crate::answers::Answers;
    #[pymodule_export]
    use crate::load::{families, load};
    #[pymodule_export]
    use crate::model::Model;
    #[cfg(debug_assertions)]
    #[pymodule_export]
    use crate::pending::_panic;
    #[pymodule_export]
    use crate::pending::Pending;
}
