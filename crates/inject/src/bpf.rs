//! Says what a seccomp filter answers to a system call of which not everything is known.
//!
//! A filter is a classic BPF program over `struct seccomp_data`; it only jumps forward. Arguments that nobody knows
//! beforehand (addresses, descriptors) are unknown values here: where a jump depends on one, both ways are followed,
//! and the worst answer counts. So what is found allowed is allowed whatever the unknown arguments turn out to be.
//! Nothing is read or run here.

/// One instruction, `struct sock_filter` of `linux/filter.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    k: u32,
}

impl Instruction {
    pub(crate) fn from_bytes([c0, c1, jump_true, jump_false, k0, k1, k2, k3]: [u8; 8]) -> Self {
        Self {
            code: u16::from_ne_bytes([c0, c1]),
            jump_true,
            jump_false,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        }
    }
}

/// A system call as a filter sees it; what is not known beforehand is `None`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query {
    pub(crate) number: u32,
    pub(crate) arguments: [Option<u64>; 6],
}

/// What happens to a call, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    /// The thread or the process is killed or gets SIGSYS, somebody else is asked, or a result is made up.
    Harmful,
    /// The call fails with an error number.
    Refused,
    /// The call takes place.
    Allowed,
}

/// `AUDIT_ARCH_X86_64` of `linux/audit.h`.
const ARCHITECTURE: u32 = 0xc000_003e;
/// `sizeof(struct seccomp_data)`.
const DATA_BYTES: u32 = 64;
/// `BPF_MEMWORDS`.
const MEMORY_WORDS: usize = 16;
/// Instructions looked at, all ways together. Real filters need some hundreds; one that needs more is not understood,
/// and what is not understood is not allowed.
const STEPS_MAX: usize = 1 << 16;

type Word = Option<u32>;

#[derive(Clone)]
struct Machine {
    at: usize,
    a: Word,
    x: Word,
    memory: [Word; MEMORY_WORDS],
}

/// The worst that `filter` can answer to `query`.
pub(crate) fn answer(filter: &[Instruction], query: &Query) -> Answer {
    let begin = Machine { at: 0, a: Some(0), x: Some(0), memory: [Some(0); MEMORY_WORDS] };
    let mut ways = vec![begin];
    let mut worst = Answer::Allowed;
    let mut steps = 0;
    while let Some(mut way) = ways.pop() {
        loop {
            steps += 1;
            let Some(&instruction) = filter.get(way.at) else { return Answer::Harmful };
            if steps > STEPS_MAX {
                return Answer::Harmful;
            }
            way.at += 1;
            match step(&mut way, instruction, query) {
                Some(Step::Next) => {}
                Some(Step::Either(other)) => {
                    let at = way.at + other;
                    ways.push(Machine { at, ..way.clone() });
                    way.at += usize::from(instruction.jump_false);
                }
                Some(Step::Return(value)) => {
                    worst = worst.min(value.map_or(Answer::Harmful, meaning));
                    break;
                }
                None => return Answer::Harmful,
            }
        }
        if worst == Answer::Harmful {
            break;
        }
    }
    worst
}

enum Step {
    Next,
    /// The jump depends on what is not known: so far for one way, `jump_false` for the other.
    Either(usize),
    Return(Word),
}

/// Runs one instruction; `None` if the kernel would not have accepted it.
fn step(way: &mut Machine, instruction: Instruction, query: &Query) -> Option<Step> {
    let Instruction { code, jump_true, jump_false, k } = instruction;
    let slot = usize::try_from(k).ok().filter(|&slot| slot < MEMORY_WORDS);
    match code {
        0x20 => way.a = load(query, k)?,                  // ld [k]
        0x80 => way.a = Some(DATA_BYTES),                 // ld len
        0x00 => way.a = Some(k),                          // ld #k
        0x60 => way.a = way.memory[slot?],                // ld M[k]
        0x81 => way.x = Some(DATA_BYTES),                 // ldx len
        0x01 => way.x = Some(k),                          // ldx #k
        0x61 => way.x = way.memory[slot?],                // ldx M[k]
        0x02 => way.memory[slot?] = way.a,                // st M[k]
        0x03 => way.memory[slot?] = way.x,                // stx M[k]
        0x07 => way.x = way.a,                            // tax
        0x87 => way.a = way.x,                            // txa
        0x06 => return Some(Step::Return(Some(k))),       // ret #k
        0x16 => return Some(Step::Return(way.a)),         // ret a
        0x05 => way.at = way.at.checked_add(k as usize)?, // ja
        0x84 => way.a = way.a.map(u32::wrapping_neg),     // neg
        _ if code & 0x07 == 0x04 => {
            let operand = if code & 0x08 == 0 { Some(k) } else { way.x };
            match (way.a, operand) {
                // A division by what may be zero: there the kernel ends the filter with 0, which is to kill.
                (_, None | Some(0)) if code & 0xf0 == 0x30 => return Some(Step::Return(Some(0))),
                (Some(a), Some(operand)) => way.a = Some(calculate(code & 0xf0, a, operand)?),
                _ => {
                    calculate(code & 0xf0, 1, 1)?;
                    way.a = None;
                }
            }
        }
        _ if code & 0x07 == 0x05 => {
            let operand = if code & 0x08 == 0 { Some(k) } else { way.x };
            let (Some(a), Some(operand)) = (way.a, operand) else {
                compare(code & 0xf0, 0, 0)?;
                return Some(Step::Either(jump_true.into()));
            };
            let jump = if compare(code & 0xf0, a, operand)? { jump_true } else { jump_false };
            way.at += usize::from(jump);
        }
        _ => return None,
    }
    Some(Step::Next)
}

fn calculate(operation: u16, a: u32, operand: u32) -> Option<u32> {
    Some(match operation {
        0x00 => a.wrapping_add(operand),
        0x10 => a.wrapping_sub(operand),
        0x20 => a.wrapping_mul(operand),
        0x30 => a.checked_div(operand)?,
        0x40 => a | operand,
        0x50 => a & operand,
        0x60 => a.wrapping_shl(operand),
        0x70 => a.wrapping_shr(operand),
        0xa0 => a ^ operand,
        _ => return None,
    })
}

fn compare(operation: u16, a: u32, operand: u32) -> Option<bool> {
    Some(match operation {
        0x10 => a == operand,
        0x20 => a > operand,
        0x30 => a >= operand,
        0x40 => a & operand != 0,
        _ => return None,
    })
}

/// A word of `struct seccomp_data`. The outer `None`: there is no such word.
fn load(query: &Query, offset: u32) -> Option<Word> {
    let half = |value: u64| if offset.is_multiple_of(8) { value as u32 } else { (value >> 32) as u32 };
    match offset {
        0 => Some(Some(query.number)),
        4 => Some(Some(ARCHITECTURE)),
        8 | 12 => Some(None), // where the instruction is
        16..=60 if offset.is_multiple_of(4) => Some(query.arguments[(offset as usize - 16) / 8].map(half)),
        _ => None,
    }
}

/// What the kernel does on a filter's return value, `SECCOMP_RET_…` of `linux/seccomp.h`.
fn meaning(value: u32) -> Answer {
    match value & 0xffff_0000 {
        0x7fff_0000 | 0x7ffc_0000 => Answer::Allowed, // allow, log
        // Error number 0 would be taken for success.
        0x0005_0000 if value & 0xffff != 0 => Answer::Refused,
        _ => Answer::Harmful,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALLOW: u32 = 0x7fff_0000;
    const EPERM: u32 = 0x0005_0001;
    const KILL: u32 = 0x8000_0000;

    fn op(code: u16, k: u32) -> Instruction {
        Instruction { code, jump_true: 0, jump_false: 0, k }
    }

    fn jump(code: u16, k: u32, jump_true: u8, jump_false: u8) -> Instruction {
        Instruction { code, jump_true, jump_false, k }
    }

    fn query(number: u32, arguments: [Option<u64>; 6]) -> Query {
        Query { number, arguments }
    }

    /// Kills on a foreign architecture, refuses call 9 with PROT_EXEC, kills on call 56 but with flag 1 << 16, allows all else.
    fn typical() -> Vec<Instruction> {
        vec![
            op(0x20, 4),
            jump(0x15, ARCHITECTURE, 1, 0),
            op(0x06, KILL),
            op(0x20, 0),
            jump(0x15, 9, 0, 3),
            op(0x20, 32),
            jump(0x45, 4, 0, 1),
            op(0x06, EPERM),
            op(0x20, 0),
            jump(0x15, 56, 0, 3),
            op(0x20, 16),
            jump(0x45, 1 << 16, 1, 0),
            op(0x06, KILL),
            op(0x06, ALLOW),
        ]
    }

    #[test]
    fn known_arguments_decide() {
        let mut arguments = [Some(0); 6];
        assert_eq!(answer(&typical(), &query(1, arguments)), Answer::Allowed);
        assert_eq!(answer(&typical(), &query(56, arguments)), Answer::Harmful);
        arguments[0] = Some(1 << 16);
        assert_eq!(answer(&typical(), &query(56, arguments)), Answer::Allowed);
        arguments[2] = Some(5);
        assert_eq!(answer(&typical(), &query(9, arguments)), Answer::Refused);
    }

    #[test]
    fn of_what_is_unknown_the_worst_counts() {
        assert_eq!(answer(&typical(), &query(56, [None; 6])), Answer::Harmful);
        assert_eq!(answer(&typical(), &query(9, [None; 6])), Answer::Refused);
        assert_eq!(answer(&typical(), &query(2, [None; 6])), Answer::Allowed);
    }

    #[test]
    fn upper_and_lower_half_of_an_argument_are_told_apart() {
        let upper = [op(0x20, 28), jump(0x15, 7, 0, 1), op(0x06, ALLOW), op(0x06, KILL)];
        let argument = |value| query(0, [Some(0), Some(value), None, None, None, None]);
        assert_eq!(answer(&upper, &argument(7 << 32)), Answer::Allowed);
        assert_eq!(answer(&upper, &argument(7)), Answer::Harmful);
    }

    #[test]
    fn values_of_filters_mean_what_the_kernel_does() {
        for (value, expect) in [
            (ALLOW, Answer::Allowed),
            (0x7ffc_0000, Answer::Allowed),
            (EPERM, Answer::Refused),
            (0x0005_0000, Answer::Harmful),
            (0x7ff0_0000, Answer::Harmful),
            (0x7fc0_0000, Answer::Harmful),
            (0x0003_0000, Answer::Harmful),
            (0, Answer::Harmful),
            (KILL, Answer::Harmful),
        ] {
            assert_eq!(answer(&[op(0x06, value)], &query(0, [None; 6])), expect, "{value:#x}");
        }
    }

    #[test]
    fn arithmetic_memory_and_division_by_zero() {
        let filter =
            [op(0x20, 0), op(0x04, 3), op(0x02, 15), op(0x61, 15), op(0x87, 0), op(0x24, 2), op(0x16, 0)];
        // (number + 3) * 2 is what the filter returns.
        assert_eq!(answer(&filter, &query(ALLOW / 2 - 3, [None; 6])), Answer::Allowed);
        let divides = [op(0x00, 8), op(0x01, 0), op(0x3c, 0), op(0x06, ALLOW)];
        assert_eq!(answer(&divides, &query(0, [None; 6])), Answer::Harmful);
    }

    #[test]
    fn a_filter_without_an_end_and_one_of_countless_ways_are_not_trusted() {
        assert_eq!(answer(&[], &query(0, [None; 6])), Answer::Harmful);
        assert_eq!(answer(&[op(0x05, u32::MAX)], &query(0, [None; 6])), Answer::Harmful);
        let mut countless = vec![op(0x20, 16)];
        countless.extend([jump(0x15, 1, 0, 0); 64]);
        countless.push(op(0x06, ALLOW));
        assert_eq!(answer(&countless, &query(0, [None; 6])), Answer::Harmful);
        assert_eq!(answer(&countless, &query(0, [Some(1); 6])), Answer::Allowed);
    }

    /// Instructions of the kinds that filters have, with targets that lie ahead.
    fn instruction() -> impl Strategy<Value = Instruction> {
        let codes = prop::sample::select(vec![
            0x20, 0x80, 0x00, 0x60, 0x01, 0x61, 0x02, 0x03, 0x07, 0x87, 0x06, 0x16, 0x05, 0x84, 0x04, 0x0c,
            0x14, 0x24, 0x34, 0x3c, 0x44, 0x54, 0x5c, 0x64, 0x74, 0xa4, 0x15, 0x1d, 0x25, 0x35, 0x45, 0x4d,
        ]);
        let k = prop_oneof![
            0u32..16,
            prop::sample::select(vec![0, 4, 16, 20, 24, 32, 60]),
            prop::sample::select(vec![ALLOW, EPERM, KILL]),
            any::<u32>()
        ];
        (codes, 0u8..6, 0u8..6, k).prop_map(|(code, jump_true, jump_false, k)| Instruction {
            code,
            jump_true,
            jump_false,
            k,
        })
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<[u8; 8]>(), 0..64), number: u32) {
            let filter: Vec<_> = bytes.into_iter().map(Instruction::from_bytes).collect();
            answer(&filter, &query(number, [None; 6]));
        }

        /// What is answered without knowing an argument is never better than what is answered with it.
        #[test]
        fn knowing_more_makes_nothing_worse(
            mut filter in prop::collection::vec(instruction(), 1..40),
            number in 0u32..400,
            arguments: [u64; 6],
            known: [bool; 6],
        ) {
            filter.push(op(0x06, ALLOW));
            let all = arguments.map(Some);
            let mut some = all;
            for (argument, known) in some.iter_mut().zip(known) {
                *argument = argument.filter(|_| known);
            }
            prop_assert!(answer(&filter, &query(number, some)) <= answer(&filter, &query(number, all)));
        }
    }
}
