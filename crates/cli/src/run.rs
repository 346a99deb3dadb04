//! `rackmem run`: starts a program under far memory and is not noticed in between.
//!
//! The order: the child is born held; the pager seizes it and says so; the child becomes the program; the
//! pager brings far memory into force before the program's first instruction. If anything fails on the way,
//! the program does not run at all.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use clap::Args;
use rustix::event::{PollFd, PollFlags};
use rustix::process::Pid;

use crate::doctor::{self, Facts, WayOut};
use crate::options::FarOptions;
use crate::program::{self, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, Missing};
use crate::signals::{self, End, Ward};
use crate::spawn::{self, Begin, Report, StartingPager};
use crate::style;

/// Start a program with far memory
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) far: FarOptions,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    pub(crate) program: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let file = match program::find(&arguments.program[0], std::env::var_os("PATH")) {
        Ok(file) => file,
        Err(Missing::NotFound(sentence)) => return Ok(refuse(sentence, EXIT_NOT_FOUND)),
        Err(Missing::NotExecutable(sentence)) => return Ok(refuse(sentence, EXIT_NOT_EXECUTABLE)),
    };
    let obstacles = doctor::obstacles(&Facts::read()?, None);
    if !obstacles.is_empty() {
        bail!("far memory is not allowed here:{}", WayOut(&obstacles));
    }
    let (hold, release) = spawn::inheritable_reader().context("cannot make the pipe to the program")?;
    let child = Command::new(spawn::myself())
        .arg("held")
        .arg(format!("--fd={}", hold.as_raw_fd()))
        .arg(spawn::option("--file", file.as_os_str()))
        .arg("--")
        .args(&arguments.program)
        .spawn()
        .context("cannot start a process for the program")?;
    drop(hold);
    let child = Pid::from_child(&child);
    let ward = Ward::new(child)?;
    let pid = child.as_raw_nonzero().get().unsigned_abs();
    let name = Path::new(&arguments.program[0]).file_name().unwrap_or_default();
    let started = spawn::spawn(pid, name, Begin::Exec, &arguments.far);
    let end = match started {
        Ok(pager) => Wrapper { ward, stage: Stage::Held(pager, release) }.run()?,
        Err(error) => {
            drop(release);
            ward.wait()?;
            return Err(error);
        }
    };
    Ok(match end {
        Outcome::Ended(End::Exited(code)) => ExitCode::from(code),
        Outcome::Ended(End::Killed(signal)) => ExitCode::from(signals::die_by(signal)),
        Outcome::NotStarted(sentence) => refuse(format!("the program was not started: {sentence}"), 1),
    })
}

fn refuse(sentence: String, code: u8) -> ExitCode {
    style::print_error(&anyhow::Error::msg(sentence));
    ExitCode::from(code)
}

/// How far the program has come.
#[derive(Debug)]
enum Stage {
    /// The child waits; a byte through this pipe lets it go on to the exec.
    Held(StartingPager, File),
    /// The child is on its way into the program.
    Starting(StartingPager),
    /// Far memory is in force. Nobody listens to the pager any more, which it notices.
    Running,
}

enum Outcome {
    Ended(End),
    NotStarted(String),
}

struct Wrapper {
    ward: Ward,
    stage: Stage,
}

impl Wrapper {
    fn run(mut self) -> anyhow::Result<Outcome> {
        loop {
            let is_pager_ready = self.poll()?;
            if let Some(end) = self.ward.attend()? {
                return Ok(Outcome::Ended(end));
            }
            if is_pager_ready && let Some(outcome) = self.hear()? {
                return Ok(outcome);
            }
        }
    }

    /// Waits for signals or for the pager; whether it was the pager.
    fn poll(&self) -> anyhow::Result<bool> {
        let signals: BorrowedFd<'_> = self.ward.as_fd();
        let mut fds = vec![PollFd::new(&signals, PollFlags::IN)];
        if let Stage::Held(pager, _) | Stage::Starting(pager) = &self.stage {
            fds.push(PollFd::new(pager, PollFlags::IN));
        }
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {
                Ok(fds.get(1).is_some_and(|pager| !pager.revents().is_empty()))
            }
            Err(error) => Err(error).context("cannot wait for the program"),
        }
    }

    /// Takes the pager's next report in; gives the end of it all where that was a failure.
    fn hear(&mut self) -> anyhow::Result<Option<Outcome>> {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Running) {
            Stage::Held(mut pager, mut release) => match pager.next() {
                Report::Held => {
                    // It can only fail when the child has ended, which its SIGCHLD tells.
                    let _ = release.write_all(b"x");
                    Stage::Starting(pager)
                }
                report => {
                    // The child sees the pipe close and ends by itself.
                    drop(release);
                    self.ward.wait()?;
                    return Ok(Some(Outcome::NotStarted(reason(report))));
                }
            },
            Stage::Starting(mut pager) => match pager.next() {
                Report::Attached { .. } => Stage::Running,
                report => return self.abandon(reason(report)).map(Some),
            },
            Stage::Running => Stage::Running,
        };
        Ok(None)
    }

    /// Ends a child that has not run an instruction of the program under far memory.
    fn abandon(&self, reason: String) -> anyhow::Result<Outcome> {
        match self.ward.attend()? {
            // The exec itself may have failed; the child has then said why, and its code is the answer.
            Some(end @ End::Exited(_)) => return Ok(Outcome::Ended(end)),
            Some(End::Killed(signal)) => {
                return Ok(Outcome::NotStarted(format!("signal {signal} killed it at its start; {reason}")));
            }
            None => self.ward.kill(),
        }
        self.ward.wait()?;
        Ok(Outcome::NotStarted(reason))
    }
}

fn reason(report: Report) -> String {
    match report {
        Report::Failed(sentence) => sentence,
        report => format!("the pager reports out of turn: {report:?}"),
    }
}
