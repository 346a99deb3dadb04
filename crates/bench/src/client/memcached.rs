//! memcached: its text protocol, `get` of many keys at once and pipelined `set`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use rackmem_types::{PAGE_SIZE, PageData};

use super::PageStore;
use crate::process::loopback;

/// Large enough for a batch of pages in one system call.
const BUFFER: usize = 256 << 10;

/// A connection to a memcached on this machine.
#[derive(Debug)]
pub(crate) struct Memcached {
    input: BufReader<TcpStream>,
    output: TcpStream,
    out: Vec<u8>,
    line: String,
    value: Vec<u8>,
}

impl Memcached {
    pub(crate) fn connect(port: u16) -> Result<Self> {
        let output = TcpStream::connect(loopback(port))?;
        output.set_nodelay(true)?;
        let input = BufReader::with_capacity(BUFFER, output.try_clone()?);
        Ok(Self { input, output, out: Vec::with_capacity(BUFFER), line: String::new(), value: Vec::new() })
    }

    fn line(&mut self) -> Result<&str> {
        self.line.clear();
        self.input.read_line(&mut self.line)?;
        self.line.strip_suffix("\r\n").context("memcached closed the connection")
    }

    fn send(&mut self) -> Result<()> {
        self.output.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }
}

impl PageStore for Memcached {
    fn send_reads(&mut self, pages: &[u32]) -> Result<()> {
        self.out.extend_from_slice(b"get");
        for page in pages {
            write!(self.out, " {page}")?;
        }
        self.out.extend_from_slice(b"\r\n");
        self.send()
    }

    fn take_reads(&mut self, pages: &[u32], check: &mut dyn FnMut(u32, &[u8]) -> Result<()>) -> Result<()> {
        for &page in pages {
            let line = self.line()?;
            let mut words = line.split(' ').skip(1);
            let (found, len) = (words.next(), words.nth(1));
            ensure!(found == Some(&page.to_string()), "memcached answered '{line}' for page {page}");
            let len: usize = len.context("memcached gave no length")?.parse()?;
            self.value.resize(len + 2, 0);
            self.input.read_exact(&mut self.value)?;
            check(page, &self.value[..len])?;
        }
        ensure!(self.line()? == "END", "memcached did not end its answer");
        Ok(())
    }

    fn send_writes(&mut self, pages: &[u32], content: &mut dyn FnMut(u32, &mut PageData)) -> Result<()> {
        let mut data = [0; PAGE_SIZE];
        for &page in pages {
            content(page, &mut data);
            write!(self.out, "set {page} 0 0 {PAGE_SIZE}\r\n")?;
            self.out.extend_from_slice(&data);
            self.out.extend_from_slice(b"\r\n");
        }
        self.send()
    }

    fn take_writes(&mut self, pages: &[u32]) -> Result<()> {
        for page in pages {
            let line = self.line()?;
            ensure!(line == "STORED", "memcached answered '{line}' to the set of page {page}");
        }
        Ok(())
    }
}
