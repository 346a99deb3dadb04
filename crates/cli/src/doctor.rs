//! `rackmem doctor`: what this machine and this user lack for far memory, each with the command that allows it.
//!
//! The examination is a pure function of [`Facts`]; the errors of `run` and `attach` use the same findings.

use std::fmt;
use std::fs;
use std::process::ExitCode;

use clap::Args;
use rustix::fs::Access;
use serde::Serialize;

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
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        let coloured = style::is_stdout_coloured();
        for finding in &findings {
            print_finding(finding, coloured);
        }
    }
    let is_ready = findings.iter().all(|finding| finding.verdict != Verdict::Missing);
    Ok(if is_ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_finding(finding: &Finding, coloured: bool) {
    let (word, colour) = match finding.verdict {
        Verdict::Good => ("ok", "\x1b[32m"),
        Verdict::Limited => ("limited", "\x1b[33m"),
        Verdict::Missing => ("missing", "\x1b[31m"),
    };
    let (colour, plain) = if coloured { (colour, "\x1b[0m") } else { ("", "") };
    println!("{colour}{word:<8}{plain} {}: {}", finding.subject, finding.text);
    if let Some(allow) = &finding.allow {
        println!("         allow it with: {allow}");
    }
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
        _ if facts.may_trace_all => finding(Verdict::Good, "processes of all users (CAP_SYS_PTRACE)", None),
        Some(2) => finding(
            Verdict::Missing,
            "kernel.yama.ptrace_scope is 2: only with CAP_SYS_PTRACE may one attach to a process",
            Some(GRANT_CAPABILITY),
        ),
        Some(1) => finding(
            Verdict::Limited,
            "'run' works, 'attach' does not: kernel.yama.ptrace_scope is 1, and CAP_SYS_PTRACE is missing",
            Some(
                "sudo sysctl -w kernel.yama.ptrace_scope=0   (or, for processes of all users: sudo setcap cap_sys_ptrace+ep $(command -v rackmem))",
            ),
        ),
        _ => finding(
            Verdict::Limited,
            "your own processes; for those of other users CAP_SYS_PTRACE is missing",
            Some(GRANT_CAPABILITY),
        ),
    }
}

/// Why the facts forbid to attach to `target` (or to start a program, without one): the findings that stand in the way.
pub(crate) fn obstacles(facts: &Facts, target: Option<&Process>) -> Vec<Finding> {
    let mut findings = vec![kernel(facts)];
    // The kernel asks whether the target itself may make a userfaultfd, so judge by its rights.
    let target_facts = Facts {
        may_trace_all: target.map_or(facts.may_trace_all, |target| target.may_trace_all),
        ..facts.clone()
    };
    findings.push(userfaultfd_of(&target_facts, target));
    findings.push(target.map_or_else(|| tracing_of_child(facts), |target| tracing_of(facts, target)));
    findings.retain(|finding| finding.verdict == Verdict::Missing);
    findings
}

fn tracing_of_child(facts: &Facts) -> Finding {
    let finding = tracing(facts);
    // A child declares its pager as its tracer, so the limits on other processes do not matter.
    let verdict = if finding.verdict == Verdict::Limited { Verdict::Good } else { finding.verdict };
    Finding { verdict, ..finding }
}

fn tracing_of(facts: &Facts, target: &Process) -> Finding {
    let finding = tracing(facts);
    if finding.verdict != Verdict::Limited {
        return finding;
    }
    if target.user != facts.user || target.may_trace_all {
        let text = format!("it is in the hands of user {}, and CAP_SYS_PTRACE is missing", target.user);
        return Finding {
            verdict: Verdict::Missing,
            text,
            allow: Some(GRANT_CAPABILITY.to_owned()),
            ..finding
        };
    }
    let verdict = if facts.ptrace_scope.unwrap_or(0) == 0 { Verdict::Good } else { Verdict::Missing };
    Finding { verdict, ..finding }
}

fn userfaultfd_of(facts: &Facts, target: Option<&Process>) -> Finding {
    let mut finding = userfaultfd(facts);
    let is_root =
        target.is_some_and(|target| target.may_trace_all) || (target.is_none() && facts.may_trace_all);
    if finding.verdict == Verdict::Limited && is_root {
        finding.verdict = Verdict::Good;
    }
    finding
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
        }
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
        let root = Facts { user: 0, may_trace_all: true, ..user() };
        assert_eq!(subjects(&root, None), [""; 0]);
        assert_eq!(subjects(&root, Some(&target(0))), [""; 0]);
        assert!(examine(&root).iter().all(|finding| finding.verdict != Verdict::Missing));
    }

    #[test]
    fn a_user_learns_each_thing_that_is_missing() {
        assert_eq!(subjects(&user(), None), ["userfaultfd"]);
        assert_eq!(subjects(&user(), Some(&target(1000))), ["userfaultfd", "tracing"]);
        let open = Facts { unprivileged_userfaultfd: Some(1), ptrace_scope: Some(0), ..user() };
        assert_eq!(subjects(&open, Some(&target(1000))), [""; 0]);
        assert_eq!(subjects(&open, Some(&target(33))), ["tracing"]);
        assert_eq!(subjects(&open, Some(&target(0))), ["tracing"]);
        let device = Facts { device: true, ..user() };
        assert_eq!(subjects(&device, None), [""; 0]);
    }

    #[test]
    fn locked_down_and_old_kernels_are_named() {
        let locked = Facts { ptrace_scope: Some(3), may_trace_all: true, user: 0, ..user() };
        assert_eq!(subjects(&locked, None), ["tracing"]);
        let old = Facts { kernel: "5.15.0".to_owned(), may_trace_all: true, user: 0, ..user() };
        assert_eq!(subjects(&old, None), ["kernel"]);
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
