//! Pipelining clients of the servers that are compared: Redis, memcached and rackmem's memory server.

pub(crate) mod load;
pub(crate) mod memcached;
pub(crate) mod rackmem;
pub(crate) mod redis_data;
pub(crate) mod resp;

use anyhow::Result;
use rackmem_types::PageData;

/// A server that keeps pages under numbers. Requests are sent ahead and their answers taken later, in order.
pub(crate) trait PageStore {
    /// Sends reads of `pages`.
    fn send_reads(&mut self, pages: &[u32]) -> Result<()>;
    /// Takes the answers to as many reads, and hands each page to `check`.
    fn take_reads(&mut self, pages: &[u32], check: &mut dyn FnMut(u32, &[u8]) -> Result<()>) -> Result<()>;
    /// Sends writes of `pages` with their contents.
    fn send_writes(&mut self, pages: &[u32], content: &mut dyn FnMut(u32, &mut PageData)) -> Result<()>;
    /// Takes the answers to as many writes.
    fn take_writes(&mut self, pages: &[u32]) -> Result<()>;
}
