//! Starts the pager process and hears how it gets on. The pager is a process of its own, in its own session, so that
//! it outlives the command that started it; its words go to a log file beside its control socket.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use rustix::io::FdFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use serde::Deserialize;

use crate::options::FarOptions;

/// A pager says three lines at most; this much without an end of line is not a pager.
const REPORT_BYTES_MAX: usize = 64 << 10;

/// How long the log of a pager that ended is kept: long enough to be asked about after a weekend.
const LOG_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a starting pager reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// It traces the held child, which may go on to the exec.
    Held,
    /// Far memory is in force.
    Attached { pause_us: u64 },
    /// It gave up, with a sentence for the user.
    Failed(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ReportLine {
    Error { error: String },
    Attached { attached: bool, pause_us: u64 },
    Held { held: bool },
}

/// A pager that has been started and is not yet known to work.
#[derive(Debug)]
pub(crate) struct StartingPager {
    child: Child,
    pipe: OwnedFd,
    reports: Reports,
    log: PathBuf,
}

/// How a pager begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// The process runs already.
    Attach,
    /// The process is held, and becomes the program.
    Exec,
    /// The process waits, because its pager was killed.
    TakeOver,
}

/// Starts a pager for process `pid`, which is, or becomes, the program `name`.
pub(crate) fn spawn(
    pid: u32,
    name: &OsStr,
    begin: Begin,
    options: &FarOptions,
) -> anyhow::Result<StartingPager> {
    let directory = rackmem_control::directory()?;
    rackmem_control::prepare(&directory)?;
    remove_old_logs(&directory, SystemTime::now());
    let log = directory.join(format!("{pid}.log"));
    let log_file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&log)
        .with_context(|| format!("cannot write the pager's log {}", log.display()))?;
    let (reader, writer) = inheritable_writer().context("cannot make the pipe to the pager")?;
    let mut command = Command::new(myself());
    command.arg("pager").arg(format!("--pid={pid}")).arg(format!("--ready-fd={}", writer.as_raw_fd()));
    command.arg(format!("--name={}", name.to_string_lossy()));
    command.arg(option("--log", std::path::absolute(&log)?.as_os_str()));
    match begin {
        Begin::Attach => {}
        Begin::Exec => drop(command.arg("--exec")),
        Begin::TakeOver => drop(command.arg("--take-over")),
    }
    let child = command
        .args(options.clone().absolute()?.to_arguments())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log_file)
        .spawn()
        .context("cannot start the pager process")?;
    Ok(StartingPager { child, pipe: reader, reports: Reports::default(), log })
}

impl StartingPager {
    /// Blocks for the next report. The end of the pager is a failure.
    pub(crate) fn next(&mut self) -> Report {
        let mut bytes = [0; 4096];
        loop {
            if let Some(report) = self.reports.queue.pop_front() {
                return report;
            }
            match rustix::io::read(&self.pipe, &mut bytes) {
                Ok(0) => return Report::Failed(self.obituary()),
                Ok(count) => self.reports.feed(&bytes[..count]),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    return Report::Failed(format!("cannot hear the pager: {}", io::Error::from(error)));
                }
            }
        }
    }

    /// What is to say of a pager that ended without a word.
    fn obituary(&mut self) -> String {
        let status = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let log = self.log.display();
        match last_line(&self.log) {
            Some(line) => format!("the pager ended ({status}): {line}; all it said is in {log}"),
            None => format!("the pager ended ({status}) and said nothing; its log is {log}"),
        }
    }
}

impl AsFd for StartingPager {
    /// Readable once [`StartingPager::next`] will not wait long.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// Cuts the bytes of the pipe into reports.
#[derive(Debug, Default)]
struct Reports {
    rest: Vec<u8>,
    queue: VecDeque<Report>,
}

impl Reports {
    fn feed(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            self.queue.push_back(parse(&line));
        }
        if self.rest.len() > REPORT_BYTES_MAX {
            self.rest.clear();
            self.queue.push_back(Report::Failed("the pager's report has no end".to_owned()));
        }
    }
}

fn parse(line: &[u8]) -> Report {
    match serde_json::from_slice(line) {
        Ok(ReportLine::Held { held: true }) => Report::Held,
        Ok(ReportLine::Attached { attached: true, pause_us }) => Report::Attached { pause_us },
        Ok(ReportLine::Error { error }) => Report::Failed(error),
        _ => Report::Failed(format!("the pager reports nonsense: {}", String::from_utf8_lossy(line).trim())),
    }
}

/// Pagers that ended well leave no log; those of the others are removed when nobody can want them any more.
fn remove_old_logs(directory: &Path, now: SystemTime) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        let age =
            entry.metadata().and_then(|metadata| metadata.modified()).map(|then| now.duration_since(then));
        // A pager with nothing to say for a week is no reason to take its log away.
        let is_old = matches!(age, Ok(Ok(age)) if age > LOG_AGE_MAX) && !path.with_extension("sock").exists();
        if is_log && is_old {
            let _ = fs::remove_file(path);
        }
    }
}

fn last_line(log: &Path) -> Option<String> {
    let text = fs::read(log).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
}

/// A pipe whose writing end the next child inherits. Dropping the writer after the spawn keeps it from later ones.
fn inheritable_writer() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::fcntl_setfd(&writer, FdFlags::empty())?;
    Ok((reader, writer))
}

/// A pipe whose reading end the next child inherits.
pub(crate) fn inheritable_reader() -> io::Result<(OwnedFd, File)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::fcntl_setfd(&reader, FdFlags::empty())?;
    Ok((reader, writer.into()))
}

/// `--name=value`, in one argument so that no value is taken for an option.
pub(crate) fn option(name: &str, value: &OsStr) -> OsString {
    let mut argument = OsString::from(name);
    argument.push("=");
    argument.push(value);
    argument
}

/// The file of this program; still there under `/proc` if an upgrade has replaced it.
pub(crate) fn myself() -> PathBuf {
    std::env::current_exe().ok().filter(|file| file.exists()).unwrap_or_else(|| "/proc/self/exe".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_cut_at_line_ends() {
        let mut reports = Reports::default();
        reports.feed(b"{\"held\":tr");
        assert_eq!(reports.queue, []);
        reports.feed(b"ue}\n{\"attached\":true,\"pause_us\":310}\n{\"error\":\"no room\"}\nhello\n");
        let failed = |text: &str| Report::Failed(text.to_owned());
        assert_eq!(
            Vec::from(reports.queue),
            [
                Report::Held,
                Report::Attached { pause_us: 310 },
                failed("no room"),
                failed("the pager reports nonsense: hello")
            ]
        );
    }

    #[test]
    fn only_old_logs_of_ended_pagers_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["1.log", "2.log", "2.sock", "other"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        remove_old_logs(directory.path(), SystemTime::now());
        assert!(directory.path().join("1.log").exists());
        remove_old_logs(directory.path(), SystemTime::now() + 2 * LOG_AGE_MAX);
        let mut left: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["2.log", "2.sock", "other"]);
    }

    #[test]
    fn a_report_without_an_end_is_a_failure() {
        let mut reports = Reports::default();
        reports.feed(&vec![b'x'; REPORT_BYTES_MAX + 1]);
        assert!(matches!(reports.queue.pop_front(), Some(Report::Failed(_))));
        assert!(reports.rest.is_empty());
    }
}
