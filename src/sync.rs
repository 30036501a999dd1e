//! The locks of the [queue](crate::queue). A test puts those of a model of threads in their place.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
