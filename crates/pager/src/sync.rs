//! How the pager's threads wait for each other: as in `std`, and in unit tests by `shuttle`, which decides there by a seed who
//! goes on. See `sim/`.

#[cfg(test)]
pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
#[cfg(test)]
pub(crate) use shuttle::thread::sleep;
#[cfg(not(test))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(test))]
pub(crate) use std::thread::sleep;
