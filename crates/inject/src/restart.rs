//! Which interrupted system calls begin again when a thread that was made to stand still goes on.
//!
//! A stop interrupts whatever call a thread waits in. Most calls tell the kernel by a number of its own that they are to
//! be restarted, and it does so. Some just give `EINTR`, as they do for a signal; a program that set no handler does not
//! expect that. For those the number is put in here: the kernel then restarts them, unless a signal with a handler is
//! there by now, for which `EINTR` is right. Nothing was done yet by a call that gives `EINTR`, so beginning again
//! repeats nothing; but its time limit begins again as well.

use nix::libc::user_regs_struct;

/// The kernel's own error numbers, by which it knows in what way to restart a call (`include/linux/errno.h`).
const ERESTARTSYS: i64 = 512;
const ERESTARTNOINTR: i64 = 513;
const ERESTARTNOHAND: i64 = 514;
const ERESTART_RESTARTBLOCK: i64 = 516;

/// Bytes of a `syscall` instruction.
const SYSCALL_BYTES: u64 = 2;

/// `asm/unistd_64.h`.
const IO_PGETEVENTS: i64 = 333;

/// How long a call that gives `EINTR` would have waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Endless,
    Limited,
}

/// Which calls begin again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// All. For a stop that happens once: a time limit may last up to twice as long then.
    All,
    /// Only those without a time limit. For stops that happen all the time, under which a limit would never be reached.
    Endless,
}

/// The registers with which a stopped thread should go on.
pub(crate) fn resumed(registers: user_regs_struct, again: Again) -> user_regs_struct {
    let interrupted = registers.orig_rax as i64 >= 0 && registers.rax as i64 == -i64::from(libc::EINTR);
    match wait_of(&registers) {
        Some(wait) if interrupted && (wait == Wait::Endless || again == Again::All) => {
            user_regs_struct { rax: -ERESTARTNOHAND as u64, ..registers }
        }
        _ => registers,
    }
}

/// The registers with which it goes on where the kernel does not restart anything: the call is made once more by the thread itself.
pub(crate) fn without_kernel(registers: user_regs_struct) -> user_regs_struct {
    if (registers.orig_rax as i64) < 0 {
        return registers;
    }
    let number = match (registers.rax as i64).wrapping_neg() {
        ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND => registers.orig_rax,
        ERESTART_RESTARTBLOCK => libc::SYS_restart_syscall as u64,
        _ => return registers,
    };
    user_regs_struct { rax: number, rip: registers.rip - SYSCALL_BYTES, ..registers }
}

/// Whether a stop makes call `number` give `EINTR`, so that another thread is better stopped.
pub(crate) fn gives_eintr(number: i64) -> bool {
    matches!(
        number,
        libc::SYS_epoll_wait
            | libc::SYS_epoll_pwait
            | libc::SYS_epoll_pwait2
            | libc::SYS_semop
            | libc::SYS_semtimedop
            | libc::SYS_rt_sigtimedwait
            | libc::SYS_io_getevents
            | IO_PGETEVENTS
            | libc::SYS_io_uring_enter
    )
}

fn wait_of(registers: &user_regs_struct) -> Option<Wait> {
    let limited_if = |limited| Some(if limited { Wait::Limited } else { Wait::Endless });
    match registers.orig_rax as i64 {
        libc::SYS_epoll_wait | libc::SYS_epoll_pwait => limited_if(registers.r10 as i32 >= 0),
        libc::SYS_epoll_pwait2 | libc::SYS_semtimedop => limited_if(registers.r10 != 0),
        libc::SYS_rt_sigtimedwait => limited_if(registers.rdx != 0),
        libc::SYS_io_getevents | IO_PGETEVENTS => limited_if(registers.r8 != 0),
        libc::SYS_semop | libc::SYS_getrandom => Some(Wait::Endless),
        // It may carry a time limit in a structure. Where something was submitted, it does not give EINTR.
        libc::SYS_io_uring_enter => Some(Wait::Limited),
        // Sockets with SO_RCVTIMEO or SO_SNDTIMEO; all others are restarted by the kernel.
        libc::SYS_read
        | libc::SYS_readv
        | libc::SYS_write
        | libc::SYS_writev
        | libc::SYS_recvfrom
        | libc::SYS_recvmsg
        | libc::SYS_recvmmsg
        | libc::SYS_sendto
        | libc::SYS_sendmsg
        | libc::SYS_sendmmsg
        | libc::SYS_accept
        | libc::SYS_accept4 => Some(Wait::Limited),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(number: i64, result: i64, r10: i64) -> user_regs_struct {
        let [rax, orig_rax, r10] = [result, number, r10].map(|value| value as u64);
        user_regs_struct { rax, orig_rax, r10, ..no_registers() }
    }

    fn no_registers() -> user_regs_struct {
        user_regs_struct {
            r15: 0,
            r14: 0,
            r13: 0,
            r12: 0,
            rbp: 0,
            rbx: 0,
            r11: 0,
            r10: 0,
            r9: 0,
            r8: 0,
            rax: 0,
            rcx: 0,
            rdx: 0,
            rsi: 0,
            rdi: 0,
            orig_rax: 0,
            rip: 0,
            cs: 0,
            eflags: 0,
            rsp: 0,
            ss: 0,
            fs_base: 0,
            gs_base: 0,
            ds: 0,
            es: 0,
            fs: 0,
            gs: 0,
        }
    }

    fn result(number: i64, result: i64, r10: i64, again: Again) -> i64 {
        resumed(after(number, result, r10), again).rax as i64
    }

    const EINTR: i64 = -(libc::EINTR as i64);

    #[test]
    fn an_endless_wait_begins_again() {
        assert_eq!(result(libc::SYS_epoll_wait, EINTR, -1, Again::Endless), -ERESTARTNOHAND);
        assert_eq!(result(libc::SYS_epoll_wait, EINTR, -1, Again::All), -ERESTARTNOHAND);
    }

    #[test]
    fn a_limited_wait_begins_again_only_after_a_rare_stop() {
        assert_eq!(result(libc::SYS_epoll_wait, EINTR, 100, Again::All), -ERESTARTNOHAND);
        assert_eq!(result(libc::SYS_epoll_wait, EINTR, 100, Again::Endless), EINTR);
        assert_eq!(result(libc::SYS_recvfrom, EINTR, 0, Again::Endless), EINTR);
    }

    #[test]
    fn what_the_kernel_restarts_and_what_has_ended_is_left_alone() {
        assert_eq!(result(libc::SYS_poll, -516, 0, Again::All), -516);
        assert_eq!(result(libc::SYS_epoll_wait, 3, -1, Again::All), 3);
        assert_eq!(result(-1, EINTR, -1, Again::All), EINTR, "not in a call");
        // A close or a connect that was interrupted has done something.
        assert_eq!(result(libc::SYS_close, EINTR, 0, Again::All), EINTR);
        assert_eq!(result(libc::SYS_connect, EINTR, 0, Again::All), EINTR);
    }

    #[test]
    fn what_the_kernel_would_restart_is_made_again_by_hand() {
        let back = |number: i64, result: i64| {
            let back = without_kernel(user_regs_struct { rip: 1002, ..after(number, result, 0) });
            (back.rax as i64, back.rip)
        };
        assert_eq!(back(libc::SYS_read, -ERESTARTSYS), (libc::SYS_read, 1000));
        assert_eq!(back(libc::SYS_nanosleep, -ERESTART_RESTARTBLOCK), (libc::SYS_restart_syscall, 1000));
        assert_eq!(back(libc::SYS_read, 5), (5, 1002));
        assert_eq!(back(-1, -ERESTARTSYS), (-ERESTARTSYS, 1002), "not in a call");
    }
}
