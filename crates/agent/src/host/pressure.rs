//! Pressure stall information, from `/proc/pressure`.

use rackmem_api::agent::{Pressure, Stall};

use super::read;

/// How much this machine's programs wait; `None` where the kernel does not count it.
pub(crate) fn pressure() -> Option<Pressure> {
    let stall = |what: &str| read(&format!("/proc/pressure/{what}")).map(|text| stall(&text));
    Some(Pressure { cpu: stall("cpu")?, memory: stall("memory")?, io: stall("io")? })
}

/// The ten-second averages in lines like `some avg10=1.50 avg60=…`.
fn stall(text: &str) -> Stall {
    let average = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        line.split_whitespace().find_map(|field| field.strip_prefix("avg10=")?.parse().ok())
    };
    Stall { some: average("some").unwrap_or(0.0), full: average("full").unwrap_or(0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_read() {
        let text = "some avg10=1.50 avg60=9.00 avg300=9.00 total=1\nfull avg10=0.25 avg60=9.00 avg300=9.00 total=1\n";
        assert_eq!(stall(text), Stall { some: 1.5, full: 0.25 });
        assert_eq!(stall(""), Stall::default());
    }
}
