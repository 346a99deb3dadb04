//! The resident thread's rights follow the program's.
//!
//! A program that gives up root (a server after it has opened its port) does so for the threads that its C library knows, and
//! the resident thread is none of these. The program can write to the ring, so what it could have run there with rights
//! that it has given up is taken away: the thread takes on the same users, groups and capabilities.

use std::fs;
use std::io;

use crate::{Call, InjectError, Resident};

/// Supplementary groups that are mirrored; a thread with more keeps none.
const GROUPS_MAX: usize = 64;
/// `_LINUX_CAPABILITY_VERSION_3` of `linux/capability.h`.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// What a thread may do.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Credentials {
    /// Real, effective, saved.
    users: [u32; 3],
    /// Real, effective, saved.
    groups: [u32; 3],
    supplementary: Vec<u32>,
    permitted: u64,
    effective: u64,
}

impl Credentials {
    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let ids = |name: &str| -> Option<Vec<u32>> {
            field(name)?.split_whitespace().map(|word| word.parse().ok()).collect()
        };
        let mask = |name: &str| u64::from_str_radix(field(name)?, 16).ok();
        let three = |name: &str| ids(name)?.get(..3)?.try_into().ok();
        Some(Self {
            users: three("Uid:")?,
            groups: three("Gid:")?,
            supplementary: ids("Groups:")?,
            permitted: mask("CapPrm:")?,
            effective: mask("CapEff:")?,
        })
    }

    fn of(task: &str) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{task}/status"))?;
        Self::parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// Whether the ids that `/proc` shows us are those that the process means.
fn shares_users(pid: u32) -> bool {
    let namespace = |task: &str| fs::read_link(format!("/proc/{task}/ns/user")).ok();
    namespace("self").is_some_and(|own| namespace(&pid.to_string()) == Some(own))
}

impl Resident {
    /// Takes on the credentials of the program's main thread, if they have changed. `true`: it did.
    pub fn follow_credentials(&self) -> Result<bool, InjectError> {
        let (program, own) =
            (Credentials::of(&self.pid().to_string()), Credentials::of(&self.thread().to_string()));
        let (Ok(program), Ok(own)) = (program, own) else { return Ok(false) };
        if program == own || !shares_users(self.pid()) {
            return Ok(false);
        }
        let mut session = self.session();
        let groups = if program.supplementary.len() <= GROUPS_MAX { &program.supplementary[..] } else { &[] };
        for (i, group) in groups.iter().enumerate() {
            session.scratch_write(i * 4, &group.to_ne_bytes());
        }
        let capabilities = GROUPS_MAX * 4;
        let halves = |mask: u64| [mask as u32, (mask >> 32) as u32];
        let (effective, permitted) = (halves(program.effective), halves(program.permitted));
        let words = [CAPABILITY_VERSION, 0, effective[0], permitted[0], 0, effective[1], permitted[1], 0];
        for (i, word) in words.into_iter().enumerate() {
            session.scratch_write(capabilities + i * 4, &word.to_ne_bytes());
        }
        let list = session.scratch_address(0);
        let header = session.scratch_address(capabilities);
        let three = |ids: [u32; 3]| [ids[0].into(), ids[1].into(), ids[2].into(), 0, 0, 0];
        // Groups first: they take a right that goes with the user. What is refused is what it had no right to anyway.
        let calls = [
            Call::new(libc::SYS_setgroups, [groups.len() as u64, list, 0, 0, 0, 0]),
            Call::new(libc::SYS_setresgid, three(program.groups)),
            Call::new(libc::SYS_setresuid, three(program.users)),
            Call::new(libc::SYS_capset, [header, header + 8, 0, 0, 0, 0]),
        ];
        session.run(&calls, &mut Vec::new())?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_understood() {
        let text = "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000000001\n";
        let expect = Credentials {
            users: [1, 2, 3],
            groups: [5, 6, 7],
            supplementary: vec![9, 10],
            permitted: 0x1ff_ffff_ffff,
            effective: 1,
        };
        assert_eq!(Credentials::parse(text), Some(expect));
        assert_eq!(Credentials::parse("Uid:\t1\n"), None);
    }
}
