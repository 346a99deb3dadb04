//! The locks that the pager's threads share: those of `std`, and in unit tests those of `shuttle`, which decides there by a
//! seed who goes on at each of them. See `sim/`.

#[cfg(test)]
pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(test))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
