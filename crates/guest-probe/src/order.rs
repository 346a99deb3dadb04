//! Orders: lines of words that a person can type as well. Pure.

use std::fmt;
use std::str::{FromStr, SplitWhitespace};

use rackmem_types::Bytes;

use crate::ProbeError;

/// What the probe is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// `hello`: say that you are there.
    Hello,
    /// `info`: say what the guest sees of its memory.
    Info,
    /// `fill SEED BYTES`: hold so much anonymous memory, with the contents of `SEED`; what was held before is given back.
    Fill {
        /// Makes the contents differ.
        seed: u64,
        /// How much; the probe rounds up to its unit.
        bytes: Bytes,
    },
    /// `check`: compare every word that is held.
    Check,
    /// `touch random|sequential PAGES [writes PERCENT]`: look at one word of so many pages, or write the page anew.
    Touch {
        /// In which order.
        pattern: Pattern,
        /// How many pages.
        pages: u64,
        /// How many of a hundred are written.
        writes_percent: u8,
    },
    /// `grow BYTES`: hold so much more.
    Grow(Bytes),
    /// `shrink BYTES`: give so much of it back to the guest's kernel.
    Shrink(Bytes),
    /// `release`: give back all that is held.
    Release,
    /// `wait total|available at-least|at-most BYTES SECONDS`: answer as soon as the guest's memory is so large.
    WaitMemory {
        /// All the memory that the guest has, or what it can still give to programs.
        available: bool,
        /// Whether to wait until it is larger or smaller.
        side: Side,
        /// Than this.
        bytes: Bytes,
        /// For so long at most.
        seconds: u32,
    },
    /// `churn start [writes PERCENT]`: from now on, between orders, check the held pages round and round, and write some anew.
    ChurnStart {
        /// How many of a hundred pages are written.
        writes_percent: u8,
    },
    /// `churn`: say how far it is.
    Churn,
    /// `churn stop`: end it, and say how far it was.
    ChurnStop,
    /// `page`: hold one page more, and say its guest-physical address.
    Page,
    /// `page read`: read the first word of that page.
    PageRead,
    /// `page write VALUE`: write it.
    PageWrite(u64),
    /// `page release`: give it back.
    PageRelease,
    /// `run COMMAND`: give the rest of the line to the guest's shell, and say what came of it.
    Run(String),
    /// `poweroff`: end the guest.
    PowerOff,
}

/// Which page is touched next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Any.
    Random,
    /// The one behind the last.
    Sequential,
}

/// Where a limit lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Below what is waited for.
    AtLeast,
    /// Above it.
    AtMost,
}

/// An order with the number that its reply carries: `#12 check`. Without a number it is a person's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Chosen by who asks.
    pub id: Option<u64>,
    /// What is asked.
    pub order: Order,
}

impl Request {
    /// The number and the order of a line. The number is told even if the order cannot be read, so that the error can be answered.
    pub fn read(line: &str) -> (Option<u64>, Result<Order, ProbeError>) {
        let line = line.trim();
        let numbered = line.strip_prefix('#').and_then(|rest| {
            let (id, order) = rest.split_once(char::is_whitespace)?;
            Some((id.parse().ok()?, order))
        });
        match numbered {
            Some((id, order)) => (Some(id), order.parse()),
            None => (None, line.parse()),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = self.id {
            write!(f, "#{id} ")?;
        }
        self.order.fmt(f)
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello => write!(f, "hello"),
            Self::Info => write!(f, "info"),
            Self::Fill { seed, bytes } => write!(f, "fill {seed} {}", bytes.0),
            Self::Check => write!(f, "check"),
            Self::Touch { pattern, pages, writes_percent } => {
                let pattern = match pattern {
                    Pattern::Random => "random",
                    Pattern::Sequential => "sequential",
                };
                write!(f, "touch {pattern} {pages} writes {writes_percent}")
            }
            Self::Grow(bytes) => write!(f, "grow {}", bytes.0),
            Self::Shrink(bytes) => write!(f, "shrink {}", bytes.0),
            Self::Release => write!(f, "release"),
            Self::WaitMemory { available, side, bytes, seconds } => {
                let what = if *available { "available" } else { "total" };
                let side = match side {
                    Side::AtLeast => "at-least",
                    Side::AtMost => "at-most",
                };
                write!(f, "wait {what} {side} {} {seconds}", bytes.0)
            }
            Self::ChurnStart { writes_percent } => write!(f, "churn start writes {writes_percent}"),
            Self::Churn => write!(f, "churn"),
            Self::ChurnStop => write!(f, "churn stop"),
            Self::Page => write!(f, "page"),
            Self::PageRead => write!(f, "page read"),
            Self::PageWrite(value) => write!(f, "page write {value}"),
            Self::PageRelease => write!(f, "page release"),
            Self::Run(command) => write!(f, "run {command}"),
            Self::PowerOff => write!(f, "poweroff"),
        }
    }
}

impl FromStr for Order {
    type Err = ProbeError;

    fn from_str(line: &str) -> Result<Self, ProbeError> {
        if let Some((_, command)) =
            line.trim().split_once(char::is_whitespace).filter(|(word, _)| *word == "run")
        {
            return Ok(Self::Run(command.trim().to_owned()));
        }
        let mut words = Words(line.split_whitespace());
        let order = words.order(line)?;
        match words.0.next() {
            None => Ok(order),
            Some(word) => Err(ProbeError::TooManyWords { order: order.to_string(), word: word.to_owned() }),
        }
    }
}

/// The words of a line that are not read yet.
struct Words<'a>(SplitWhitespace<'a>);

impl Words<'_> {
    fn order(&mut self, line: &str) -> Result<Order, ProbeError> {
        let unknown = || ProbeError::UnknownOrder(line.trim().to_owned());
        let order = match self.0.next().ok_or_else(unknown)? {
            "hello" => Order::Hello,
            "info" => Order::Info,
            "fill" => Order::Fill { seed: self.number("SEED")?, bytes: self.bytes()? },
            "check" => Order::Check,
            "touch" => Order::Touch {
                pattern: self.one_of("random", Pattern::Random, "sequential", Pattern::Sequential)?,
                pages: self.number("PAGES")?,
                writes_percent: self.writes()?,
            },
            "grow" => Order::Grow(self.bytes()?),
            "shrink" => Order::Shrink(self.bytes()?),
            "release" => Order::Release,
            "wait" => Order::WaitMemory {
                available: self.one_of("total", false, "available", true)?,
                side: self.one_of("at-least", Side::AtLeast, "at-most", Side::AtMost)?,
                bytes: self.bytes()?,
                seconds: self.number("SECONDS")?,
            },
            "churn" => match self.0.next() {
                None => Order::Churn,
                Some("start") => Order::ChurnStart { writes_percent: self.writes()? },
                Some("stop") => Order::ChurnStop,
                Some(_) => return Err(unknown()),
            },
            "page" => match self.0.next() {
                None => Order::Page,
                Some("read") => Order::PageRead,
                Some("write") => Order::PageWrite(self.number("VALUE")?),
                Some("release") => Order::PageRelease,
                Some(_) => return Err(unknown()),
            },
            "run" => return Err(ProbeError::MissingWord("COMMAND")),
            "poweroff" => Order::PowerOff,
            _ => return Err(unknown()),
        };
        Ok(order)
    }

    fn word(&mut self, what: &'static str) -> Result<&str, ProbeError> {
        self.0.next().ok_or(ProbeError::MissingWord(what))
    }

    fn number<T: FromStr>(&mut self, what: &'static str) -> Result<T, ProbeError> {
        let word = self.word(what)?;
        word.parse().map_err(|_| ProbeError::NotANumber { what, word: word.to_owned() })
    }

    fn bytes(&mut self) -> Result<Bytes, ProbeError> {
        Ok(self.word("BYTES")?.parse()?)
    }

    fn one_of<T>(
        &mut self,
        first: &'static str,
        if_first: T,
        second: &'static str,
        if_second: T,
    ) -> Result<T, ProbeError> {
        match self.word(first)? {
            word if word == first => Ok(if_first),
            word if word == second => Ok(if_second),
            word => Err(ProbeError::NeitherWord { first, second, word: word.to_owned() }),
        }
    }

    /// `writes PERCENT`, or nothing for none.
    fn writes(&mut self) -> Result<u8, ProbeError> {
        match self.0.next() {
            None => Ok(0),
            Some("writes") => match self.number("PERCENT")? {
                percent @ 0..=100 => Ok(percent),
                percent => Err(ProbeError::NotANumber { what: "PERCENT", word: percent.to_string() }),
            },
            Some(word) => {
                Err(ProbeError::NeitherWord { first: "writes", second: "nothing", word: word.to_owned() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order() -> impl Strategy<Value = Order> {
        let bytes = || any::<u64>().prop_map(Bytes);
        prop_oneof![
            prop::sample::select(vec![
                Order::Hello,
                Order::Info,
                Order::Check,
                Order::Release,
                Order::Churn,
                Order::ChurnStop,
                Order::Page,
                Order::PageRead,
                Order::PageRelease,
                Order::PowerOff,
            ]),
            (any::<u64>(), bytes()).prop_map(|(seed, bytes)| Order::Fill { seed, bytes }),
            (any::<bool>(), any::<u64>(), 0u8..=100).prop_map(|(random, pages, writes_percent)| {
                Order::Touch {
                    pattern: if random { Pattern::Random } else { Pattern::Sequential },
                    pages,
                    writes_percent,
                }
            }),
            bytes().prop_map(Order::Grow),
            bytes().prop_map(Order::Shrink),
            (any::<bool>(), any::<bool>(), bytes(), any::<u32>()).prop_map(
                |(available, least, bytes, seconds)| {
                    let side = if least { Side::AtLeast } else { Side::AtMost };
                    Order::WaitMemory { available, side, bytes, seconds }
                }
            ),
            (0u8..=100).prop_map(|writes_percent| Order::ChurnStart { writes_percent }),
            any::<u64>().prop_map(Order::PageWrite),
            "[!-~]([ -~]{0,30}[!-~])?".prop_map(Order::Run),
        ]
    }

    proptest! {
        #[test]
        fn every_order_is_read_back(id in any::<Option<u64>>(), order in order()) {
            let (read_id, read_order) = Request::read(&Request { id, order: order.clone() }.to_string());
            prop_assert_eq!(read_id, id);
            prop_assert_eq!(read_order.unwrap(), order);
        }

        #[test]
        fn no_line_is_a_surprise(line in "\\PC{0,60}") {
            let _ = Request::read(&line);
        }
    }

    #[test]
    fn reads_what_people_type() {
        assert_eq!("fill 7 64MiB".parse::<Order>().unwrap(), Order::Fill { seed: 7, bytes: Bytes(64 << 20) });
        let touch = Order::Touch { pattern: Pattern::Random, pages: 1000, writes_percent: 0 };
        assert_eq!(" touch random 1000 ".parse::<Order>().unwrap(), touch);
        assert_eq!("churn start".parse::<Order>().unwrap(), Order::ChurnStart { writes_percent: 0 });
    }

    #[test]
    fn says_what_is_wrong_with_a_line() {
        for (line, error) in [
            ("", "an order is missing: send one, for example `info`"),
            ("fil 7 64MiB", "`fil 7 64MiB` is no order: docs/test-guests.md lists them"),
            ("fill", "the order ends where SEED is expected"),
            ("run", "the order ends where COMMAND is expected"),
            ("fill x 64MiB", "'x' is not a number that can stand for SEED"),
            (
                "fill 7 1.5GiB",
                "'1.5GiB' is not an amount of memory: write a number and a unit, for example 256MiB or 4GiB",
            ),
            ("touch often 3", "'often' stands where random or sequential is expected"),
            ("touch random 3 writes 101", "'101' is not a number that can stand for PERCENT"),
            ("check all", "'all' is one word too many after `check`"),
        ] {
            assert_eq!(line.parse::<Order>().unwrap_err().to_string(), error, "{line}");
        }
    }

    #[test]
    fn a_wrong_order_still_tells_its_number() {
        let (id, order) = Request::read("#5 nonsense");
        assert_eq!(id, Some(5));
        assert!(order.is_err());
    }
}
