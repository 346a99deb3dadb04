//! Data in Redis whose every value can be checked: a value is a function of its key's number.

use anyhow::{Result, bail, ensure};

use super::resp::{Redis, Reply};
use crate::random::mix;

/// Commands in one batch of the load and of the check.
pub(crate) const BATCH: u64 = 64;

/// Key number `number`.
pub(crate) fn key(number: u64) -> String {
    format!("key:{number:010}")
}

/// The value of key `number`: `len` bytes, a multiple of 8.
pub(crate) fn value(number: u64, len: usize, out: &mut Vec<u8>) {
    out.clear();
    let base = mix(number);
    // The words differ from each other, but half of them repeat: values of real programs compress.
    for word in 0..len as u64 / 8 {
        out.extend_from_slice(&base.wrapping_mul((word / 2) | 1).rotate_left(9).to_le_bytes());
    }
}

/// Sets the keys of a range.
pub(crate) fn fill(redis: &mut Redis, keys: std::ops::Range<u64>, len: usize) -> Result<()> {
    let mut data = Vec::with_capacity(len);
    for number in keys.clone() {
        value(number, len, &mut data);
        redis.add(&[b"SET", key(number).as_bytes(), &data])?;
    }
    redis.send()?;
    for number in keys {
        ensure!(redis.take()? == Reply::Text("OK".to_owned()), "Redis did not set {}", key(number));
    }
    Ok(())
}

/// Reads keys, all in flight at once, and checks their values.
pub(crate) fn check(redis: &mut Redis, keys: &[u64], len: usize) -> Result<()> {
    for &number in keys {
        redis.add(&[b"GET", key(number).as_bytes()])?;
    }
    redis.send()?;
    let mut right = Vec::with_capacity(len);
    for &number in keys {
        value(number, len, &mut right);
        match redis.take()? {
            Reply::Value(data) if data == right => {}
            Reply::Nothing => bail!("Redis lost {}", key(number)),
            _ => bail!("Redis holds something else than was written to {}", key(number)),
        }
    }
    Ok(())
}
