//! `rackmem doctor`: what this machine and this user lack for far memory, each with the command that allows it.
//!
//! The examination is a pure function of [`Facts`]; the errors of `run` and `attach` use the same findings.

use std::fmt;
use std::fs;
use std::os::fd::AsFd;
use std::process::ExitCode;

use clap::Args;
use rackmem_uapi::uffd;
use rustix::fs::Access;
use serde::Serialize;

use crate::out;
use crate::process::{self, Process};
use crate::style;

/// The oldest kernel whose userfaultfd can do what the pager needs (Debian 12 has it).
const KERNEL_MIN: (u32, u32) = (6, 1);

const GRANT_CAPABILITY: &str =
    "sudo setcap cap_sys_ptrace+ep $(command -v rackmem)   (or run rackmem with sudo)";

/// Say what is missing for far memory on this machine, and how to allow it
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Machine-readable output
    #[arg(long)]
    pub(crate) json: bool,
}

/// What decides whether memory can be managed.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) kernel: String,
    pub(crate) user: u32,
    /// CAP_SYS_PTRACE is effective for this process.
    pub(crate) may_trace_all: bool,
    /// `kernel.yama.ptrace_scope`; `None` where the kernel has no Yama.
    pub(crate) ptrace_scope: Option<u8>,
    /// `vm.unprivileged_userfaultfd`; `None` where the kernel has no userfaultfd.
    pub(crate) unprivileged_userfaultfd: Option<u8>,
    /// `/dev/userfaultfd` can be opened by this user.
    pub(crate) device: bool,
    /// The kernel lets this process ask for the forks of a program whose faults it resolves.
    pub(crate) fork_events: bool,
}

/// One thing examined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) subject: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) text: String,
    /// The command that allows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allow: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Nothing is missing.
    Good,
    /// Some uses are not possible.
    Limited,
    /// Nothing works without it.
    Missing,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let findings = examine(&Facts::read()?);
    if arguments.json {
        out::json(&findings)?;
    } else {
        let coloured = style::is_stdout_coloured();
        for finding in &findings {
            print_finding(finding, coloured)?;
        }
    }
    let is_ready = findings.iter().all(|finding| finding.verdict != Verdict::Missing);
    Ok(if is_ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_finding(finding: &Finding, coloured: bool) -> anyhow::Result<()> {
    let (word, colour) = match finding.verdict {
        Verdict::Good => ("ok", "\x1b[32m"),
        Verdict::Limited => ("limited", "\x1b[33m"),
        Verdict::Missing => ("missing", "\x1b[31m"),
    };
    let (colour, plain) = if coloured { (colour, "\x1b[0m") } else { ("", "") };
    out::line(format_args!("{colour}{word:<8}{plain} {}: {}", finding.subject, finding.text))?;
    if let Some(allow) = &finding.allow {
        out::line(format_args!("         allow it with: {allow}"))?;
    }
    Ok(())
}

impl Facts {
    /// The facts of this machine and this process.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let number = |path| fs::read_to_string(path).ok()?.trim().parse().ok();
        let Process { user, may_trace_all, .. } = process::myself()?;
        Ok(Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            user,
            may_trace_all,
            ptrace_scope: number("/proc/sys/kernel/yama/ptrace_scope"),
            unprivileged_userfaultfd: number("/proc/sys/vm/unprivileged_userfaultfd"),
            device: rustix::fs::access("/dev/userfaultfd", Access::READ_OK | Access::WRITE_OK).is_ok(),
            fork_events: uffd::create(uffd::USER_MODE_ONLY)
                .and_then(|probe| uffd::api(probe.as_fd(), uffd::feature::EVENT_FORK))
                .is_ok(),
        })
    }
}

/// Judges the facts, the most basic first.
pub(crate) fn examine(facts: &Facts) -> Vec<Finding> {
    vec![kernel(facts), userfaultfd(facts), tracing(facts)]
}

fn kernel(facts: &Facts) -> Finding {
    let (verdict, text) = match version(&facts.kernel) {
        Some(version) if version >= KERNEL_MIN => (Verdict::Good, format!("Linux {}", facts.kernel)),
        _ => (
            Verdict::Missing,
            format!(
                "Linux {} is too old: {}.{} or newer is needed",
                facts.kernel, KERNEL_MIN.0, KERNEL_MIN.1
            ),
        ),
    };
    let allow = (verdict == Verdict::Missing)
        .then(|| "sudo apt full-upgrade (or your system's way to a newer kernel)".to_owned());
    Finding { subject: "kernel", verdict, text, allow }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn userfaultfd(facts: &Facts) -> Finding {
    let finding = |verdict, text: &str, allow: Option<&str>| Finding {
        subject: "userfaultfd",
        verdict,
        text: text.to_owned(),
        allow: allow.map(str::to_owned),
    };
    let sysctl = "sudo sysctl -w vm.unprivileged_userfaultfd=1";
    match facts.unprivileged_userfaultfd {
        None => finding(
            Verdict::Missing,
            "this kernel is built without it (CONFIG_USERFAULTFD), or /proc/sys is hidden",
            Some("boot a kernel with CONFIG_USERFAULTFD=y, as every large distribution has"),
        ),
        Some(1) => finding(Verdict::Good, "every program may have its page faults resolved", None),
        // The pager opens the device and hands it to the target, so the target's own rights do not matter.
        Some(_) if facts.device => {
            finding(Verdict::Good, "programs may have their page faults resolved, by /dev/userfaultfd", None)
        }
        Some(_) if facts.may_trace_all => finding(
            Verdict::Limited,
            "programs of root may have their page faults resolved, programs of other users may not: \
             vm.unprivileged_userfaultfd is 0 and /dev/userfaultfd is closed",
            Some(sysctl),
        ),
        Some(_) => finding(
            Verdict::Missing,
            "your programs may not have their page faults resolved: vm.unprivileged_userfaultfd is 0 and \
             /dev/userfaultfd is closed to you",
            Some(
                "sudo sysctl -w vm.unprivileged_userfaultfd=1   (or: sudo setfacl -m u:$USER:rw /dev/userfaultfd)",
            ),
        ),
    }
}

fn tracing(facts: &Facts) -> Finding {
    let finding = |verdict, text: &str, allow: Option<&str>| Finding {
        subject: "tracing",
        verdict,
        text: text.to_owned(),
        allow: allow.map(str::to_owned),
    };
    match facts.ptrace_scope {
        Some(3..) => finding(
            Verdict::Missing,
            "kernel.yama.ptrace_scope is 3: nobody may attach to any process until the next boot",
            Some("set kernel.yama.ptrace_scope to 1 in /etc/sysctl.d and boot again"),
        ),
        // The kernel tells of a program's forks only who has the capability, and a fork that is not seen would
        // read zeros where its far pages should be.
        _ if !facts.may_trace_all => finding(
            Verdict::Missing,
            "rackmem may not enter programs and follow their forks: CAP_SYS_PTRACE is missing",
            Some(GRANT_CAPABILITY),
        ),
        _ if !facts.fork_events => finding(
            Verdict::Missing,
            "the kernel does not let rackmem follow a program's forks: CAP_SYS_PTRACE counts only outside of user \
             namespaces, and this looks like one",
            Some("run rackmem on the host, or start the container with --userns=host --cap-add=SYS_PTRACE"),
        ),
        _ => finding(Verdict::Good, "processes of all users may be entered (CAP_SYS_PTRACE)", None),
    }
}

/// Why the facts forbid to attach to `target` (or to start a program, without one): the findings that stand in the way.
pub(crate) fn obstacles(facts: &Facts, target: Option<&Process>) -> Vec<Finding> {
    // The kernel asks whether the target itself may make a userfaultfd, so judge by its rights. What `run` starts has
    // those of root, but not those that a file capability gives to rackmem alone.
    let may_trace_all = target.map_or(facts.may_trace_all && facts.user == 0, |target| target.may_trace_all);
    let mut faults = userfaultfd(&Facts { may_trace_all, ..facts.clone() });
    if faults.verdict == Verdict::Limited {
        // Limited to programs with the right, which this one has.
        faults.verdict = Verdict::Good;
    }
    let mut findings = vec![kernel(facts), faults, tracing(facts)];
    findings.retain(|finding| finding.verdict == Verdict::Missing);
    findings
}

/// Findings as the way out of an error: one per line.
pub(crate) struct WayOut<'a>(pub(crate) &'a [Finding]);

impl fmt::Display for WayOut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in self.0 {
            write!(f, "\n  {}: {}", finding.subject, finding.text)?;
            if let Some(allow) = &finding.allow {
                write!(f, "\n    allow it with: {allow}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> Facts {
        Facts {
            kernel: "6.1.0-18-amd64".to_owned(),
            user: 1000,
            may_trace_all: false,
            ptrace_scope: Some(1),
            unprivileged_userfaultfd: Some(0),
            device: false,
            fork_events: false,
        }
    }

    fn root() -> Facts {
        Facts { user: 0, may_trace_all: true, fork_events: true, ..user() }
    }

    fn target(user: u32) -> Process {
        Process {
            name: "redis".to_owned(),
            is_zombie: false,
            group: 70,
            tracer: 0,
            user,
            has_memory: true,
            may_trace_all: user == 0,
        }
    }

    fn subjects(facts: &Facts, target: Option<&Process>) -> Vec<&'static str> {
        obstacles(facts, target).iter().map(|finding| finding.subject).collect()
    }

    #[test]
    fn root_lacks_nothing_for_its_own() {
        assert_eq!(subjects(&root(), None), [""; 0]);
        assert_eq!(subjects(&root(), Some(&target(0))), [""; 0]);
        assert!(examine(&root()).iter().all(|finding| finding.verdict != Verdict::Missing));
    }

    #[test]
    fn a_program_without_rights_needs_the_sysctl_or_the_device() {
        assert_eq!(subjects(&root(), Some(&target(33))), ["userfaultfd"]);
        assert_eq!(subjects(&Facts { device: true, ..root() }, Some(&target(33))), [""; 0]);
        let sysctl = Facts { unprivileged_userfaultfd: Some(1), ..root() };
        assert_eq!(subjects(&sysctl, Some(&target(33))), [""; 0]);
        // rackmem with a file capability, run by a user: its children do not have it.
        assert_eq!(subjects(&Facts { user: 1000, ..root() }, None), ["userfaultfd"]);
    }

    #[test]
    fn a_user_learns_each_thing_that_is_missing() {
        assert_eq!(subjects(&user(), None), ["userfaultfd", "tracing"]);
        assert_eq!(subjects(&user(), Some(&target(1000))), ["userfaultfd", "tracing"]);
        let sysctl = Facts { unprivileged_userfaultfd: Some(1), ..user() };
        assert_eq!(subjects(&sysctl, Some(&target(1000))), ["tracing"]);
        assert_eq!(subjects(&Facts { may_trace_all: true, fork_events: true, ..sysctl }, None), [""; 0]);
    }

    #[test]
    fn locked_down_contained_and_old_machines_are_named() {
        assert_eq!(subjects(&Facts { ptrace_scope: Some(3), ..root() }, None), ["tracing"]);
        assert_eq!(subjects(&Facts { ptrace_scope: Some(2), ..root() }, None), [""; 0]);
        assert_eq!(subjects(&Facts { fork_events: false, ..root() }, None), ["tracing"]);
        assert_eq!(subjects(&Facts { kernel: "5.15.0".to_owned(), ..root() }, None), ["kernel"]);
        assert_eq!(version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(version("6.1"), Some((6, 1)));
    }

    #[test]
    fn every_obstacle_has_a_way_out() {
        let findings = obstacles(&user(), Some(&target(33)));
        let text = WayOut(&findings).to_string();
        assert_eq!(text.matches("allow it with: ").count(), findings.len(), "{text}");
        assert!(text.contains("vm.unprivileged_userfaultfd=1") && text.contains("cap_sys_ptrace"), "{text}");
    }
}
