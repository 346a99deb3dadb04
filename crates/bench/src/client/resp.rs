//! Redis: the part of its protocol (RESP 2) that a load needs, with many requests in flight.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;

use anyhow::{Result, bail, ensure};
use rackmem_types::{PAGE_SIZE, PageData};

use super::PageStore;
use crate::process::loopback;

/// Large enough for a batch of pages in one system call.
const BUFFER: usize = 256 << 10;

/// A connection to a Redis server on this machine.
#[derive(Debug)]
pub(crate) struct Redis {
    input: BufReader<TcpStream>,
    output: TcpStream,
    out: Vec<u8>,
    value: Vec<u8>,
}

/// An answer. Values are left in the connection's buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply<'a> {
    Text(String),
    Integer(i64),
    Value(&'a [u8]),
    Nothing,
}

impl Redis {
    pub(crate) fn connect(port: u16) -> Result<Self> {
        let output = TcpStream::connect(loopback(port))?;
        output.set_nodelay(true)?;
        let input = BufReader::with_capacity(BUFFER, output.try_clone()?);
        Ok(Self { input, output, out: Vec::with_capacity(BUFFER), value: Vec::new() })
    }

    /// Adds a command to what [`Redis::send`] will send.
    pub(crate) fn add(&mut self, words: &[&[u8]]) -> Result<()> {
        write!(self.out, "*{}\r\n", words.len())?;
        for word in words {
            write!(self.out, "${}\r\n", word.len())?;
            self.out.extend_from_slice(word);
            self.out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    /// Sends the commands that were added.
    pub(crate) fn send(&mut self) -> Result<()> {
        self.output.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// The next answer. An error that the server reports is an error here.
    pub(crate) fn take(&mut self) -> Result<Reply<'_>> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).unwrap_or_default();
        match kind {
            "+" => Ok(Reply::Text(rest.to_owned())),
            ":" => Ok(Reply::Integer(rest.parse()?)),
            "$" if rest == "-1" => Ok(Reply::Nothing),
            "$" => {
                let len: usize = rest.parse()?;
                self.value.resize(len + 2, 0);
                self.input.read_exact(&mut self.value)?;
                Ok(Reply::Value(&self.value[..len]))
            }
            "-" => bail!("Redis refused: {rest}"),
            _ => bail!("'{line}' is no answer of Redis"),
        }
    }

    /// One command and its answer.
    pub(crate) fn call(&mut self, words: &[&str]) -> Result<Reply<'_>> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.add(&words)?;
        self.send()?;
        self.take()
    }

    /// One line of `INFO`, as text.
    pub(crate) fn info(&mut self, section: &str, name: &str) -> Result<String> {
        let Reply::Value(text) = self.call(&["INFO", section])? else { bail!("INFO without an answer") };
        let text = String::from_utf8_lossy(text);
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(str::to_owned).ok_or_else(|| anyhow::anyhow!("INFO {section} has no {name}"))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut self.input, &mut line)?;
        ensure!(line.ends_with("\r\n"), "Redis closed the connection");
        line.truncate(line.len() - 2);
        Ok(line)
    }
}

fn key(page: u32) -> String {
    format!("page:{page:08}")
}

impl PageStore for Redis {
    fn send_reads(&mut self, pages: &[u32]) -> Result<()> {
        for &page in pages {
            self.add(&[b"GET", key(page).as_bytes()])?;
        }
        self.send()
    }

    fn take_reads(&mut self, pages: &[u32], check: &mut dyn FnMut(u32, &[u8]) -> Result<()>) -> Result<()> {
        for &page in pages {
            let Reply::Value(value) = self.take()? else { bail!("Redis has no page {page}") };
            check(page, value)?;
        }
        Ok(())
    }

    fn send_writes(&mut self, pages: &[u32], content: &mut dyn FnMut(u32, &mut PageData)) -> Result<()> {
        let mut data = [0; PAGE_SIZE];
        for &page in pages {
            content(page, &mut data);
            self.add(&[b"SET", key(page).as_bytes(), &data])?;
        }
        self.send()
    }

    fn take_writes(&mut self, pages: &[u32]) -> Result<()> {
        for _ in pages {
            ensure!(self.take()? == Reply::Text("OK".to_owned()), "Redis did not set a page");
        }
        Ok(())
    }
}
