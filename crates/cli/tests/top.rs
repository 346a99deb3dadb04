//! `rackmem top` on a terminal: what is on the screen is read as a person would, and keys are pressed.
#![allow(clippy::unwrap_used)]

mod stub;

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rackmem_types::Bytes;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use stub::Stub;

/// Nothing on the screen takes longer to come, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A terminal with `top` on it.
struct Terminal {
    top: Child,
    ours: File,
    /// Kept open, so that its modes can be looked at when `top` has ended.
    theirs: OwnedFd,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    fn start(stub: &Stub, columns: u16, lines: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        tcsetwinsize(&ours, size(columns, lines)).unwrap();
        let theirs = ioctl_tiocgptpeer(&ours, flags).unwrap();
        // As a login does it: a session whose terminal this is, so that a change of size is told.
        let mut command = Command::new("setsid");
        command.args(["--ctty", env!("CARGO_BIN_EXE_rackmem"), "top"]).env("TERM", "xterm-256color");
        let stdio = || Stdio::from(theirs.try_clone().unwrap());
        let top = stub.known_to(&mut command).stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(nonzero(lines), nonzero(columns), 0)));
        let (shown, mut output) = (Arc::clone(&screen), File::from(ours.try_clone().unwrap()));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().process(&bytes[..count]);
            }
        });
        Self { top, ours: File::from(ours), theirs, screen }
    }

    fn resize(&self, columns: u16, lines: u16) {
        self.screen.lock().unwrap().screen_mut().set_size(nonzero(lines), nonzero(columns));
        tcsetwinsize(&self.ours, size(columns, lines)).unwrap();
    }

    fn press(&mut self, keys: &str) {
        self.ours.write_all(keys.as_bytes()).unwrap();
    }

    fn lines(&self) -> Vec<String> {
        let screen = self.screen.lock().unwrap();
        let (_, columns) = screen.screen().size();
        screen.screen().rows(0, columns.get()).collect()
    }

    /// Waits until the screen is as `is_right` wants it; gives its lines.
    #[track_caller]
    fn shows(&self, what: &str, is_right: impl Fn(&[String]) -> bool) -> Vec<String> {
        let started = Instant::now();
        loop {
            let lines = self.lines();
            if is_right(&lines) {
                return lines;
            }
            assert!(started.elapsed() < PATIENCE, "{what} does not appear:\n{}", lines.join("\n"));
            thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn says(&self, text: &str) -> Vec<String> {
        self.shows(text, |lines| lines.iter().any(|line| line.contains(text)))
    }

    /// Waits for the end; how it was.
    fn end(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.top.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "top does not end");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.top.kill();
        let _ = self.top.wait();
    }
}

fn size(columns: u16, lines: u16) -> Winsize {
    Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn nonzero(number: u16) -> NonZero<u16> {
    NonZero::new(number).unwrap()
}

/// Whether the last line tells the keys.
fn has_foot(lines: &[String]) -> bool {
    lines.last().is_some_and(|line| line.starts_with("↑↓ choose"))
}

#[test]
fn shows_graphs_and_obeys_keys() {
    let stub = Stub::start();
    let mut terminal = Terminal::start(&stub, 80, 24);
    let lines = terminal.says("faults 1000/s  (most 1000/s)");
    assert!(lines[0].trim_start().starts_with("PID  COMMAND"), "{lines:#?}");
    assert!(lines[1].starts_with("4242  redis-server"), "{lines:#?}");
    let has_graph = |lines: &[String]| lines.iter().filter(|line| line.contains('█')).count() >= 2;
    terminal.shows("graphs of faults and latency", has_graph);
    terminal.says("fault p99 90 µs");
    terminal.says("the memory server 10.0.0.7:7070 is lost");

    terminal.press("-");
    terminal.says("process 4242: local limit");
    assert!(*stub.target.limit.lock().unwrap() < Bytes(256 << 20));
    terminal.press("d");
    terminal.says("detach process 4242 and bring all its memory home? y/n");
    terminal.press("n");
    terminal.shows("the keys again", has_foot);
}

#[test]
fn follows_the_size_of_its_terminal() {
    let stub = Stub::start();
    let terminal = Terminal::start(&stub, 80, 24);
    terminal.says("faults 1000/s");
    let fits = |lines: &[String]| lines[1].contains("4242  redis-server") && has_foot(lines);
    terminal.resize(150, 40);
    let wide = terminal.shows("a screen of 40 lines", |lines| lines.len() == 40 && fits(lines));
    assert!(wide[0].contains("FETCH MiB/S"), "{wide:#?}");
    terminal.resize(44, 8);
    let small = terminal.shows("a screen of 8 lines", |lines| lines.len() == 8 && fits(lines));
    assert!(small[0].contains("LIMIT") && !small[0].contains("FAULTS"), "{small:#?}");
}

#[test]
fn leaves_the_terminal_as_it_was() {
    for keys in ["q", "\u{3}"] {
        let stub = Stub::start();
        let mut terminal = Terminal::start(&stub, 80, 24);
        let modes = || tcgetattr(&terminal.theirs).unwrap().local_modes;
        terminal.says("faults");
        assert!(!modes().contains(LocalModes::ICANON), "keys come at once");
        terminal.press(keys);
        assert!(terminal.end().success());
        let modes = tcgetattr(&terminal.theirs).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
        terminal.shows("the screen from before", |lines| lines.iter().all(String::is_empty));
        assert!(!terminal.screen.lock().unwrap().screen().alternate_screen());
    }
}
