//! A Redis server and just enough of its protocol (RESP) to load it, read it back and have it dump.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::Process;

/// A Redis server answers for the first time within this time, having loaded its dump.
const START: Duration = Duration::from_secs(30);

/// No single answer may take longer.
const ANSWER: Duration = Duration::from_secs(60);

/// A running server and one connection to it.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    address: String,
    connection: BufReader<TcpStream>,
}

impl Redis {
    /// Starts `command`, a Redis server that listens on `address`, and waits until it answers.
    #[track_caller]
    pub fn start(command: &mut Command, address: &str, limit: Duration) -> Self {
        let mut process = Process::start(command, limit);
        let started = Instant::now();
        loop {
            if !process.is_running() {
                let ended = process.finish();
                panic!("redis-server did not start: {}\n{}{}", ended.status, ended.stdout, ended.stderr);
            }
            if let Ok(stream) = TcpStream::connect(address) {
                stream.set_read_timeout(Some(ANSWER)).expect("a socket takes a timeout");
                let address = address.to_owned();
                let mut redis = Self { process, address, connection: BufReader::new(stream) };
                redis.send(&[b"PING"]);
                if redis.answer() == b"PONG" {
                    return redis;
                }
                process = redis.process;
            }
            assert!(started.elapsed() < START, "redis-server does not answer on {address}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `HOST:PORT` of the server.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The process that was started: `rackmem run` or the server itself.
    pub fn into_process(self) -> Process {
        self.process
    }

    /// Sends a command without waiting for its answer.
    #[track_caller]
    pub fn send(&mut self, words: &[&[u8]]) {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend(format!("${}\r\n", word.len()).into_bytes());
            bytes.extend_from_slice(word);
            bytes.extend(b"\r\n");
        }
        self.connection.get_mut().write_all(&bytes).expect("redis-server takes commands");
    }

    /// The next answer: a bulk string's content or a status; empty for a missing value.
    #[track_caller]
    pub fn answer(&mut self) -> Vec<u8> {
        let mut line = String::new();
        self.connection.read_line(&mut line).expect("redis-server answers");
        let (kind, rest) = line.trim_end().split_at_checked(1).expect("redis-server closed the connection");
        match kind {
            "+" | ":" | "-" => rest.into(),
            "$" if rest == "-1" => Vec::new(),
            "$" => {
                let length: usize = rest.parse().expect("a bulk string has a length");
                let mut bytes = vec![0; length + 2];
                self.connection.read_exact(&mut bytes).expect("redis-server answers");
                bytes.truncate(length);
                bytes
            }
            _ => panic!("redis-server answers with '{line}'"),
        }
    }

    /// Sends a command and waits for its answer.
    #[track_caller]
    pub fn ask(&mut self, words: &[&[u8]]) -> Vec<u8> {
        self.send(words);
        self.answer()
    }

    /// A number from `INFO`.
    #[track_caller]
    pub fn info(&mut self, field: &str) -> String {
        let text = String::from_utf8(self.ask(&[b"INFO"])).expect("INFO is text");
        let found = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        found.unwrap_or_else(|| panic!("INFO has no {field}")).trim().to_owned()
    }
}
