//! First touch of fresh memory, under rackmem with room enough, against the same natively.

use anyhow::Result;
use rackmem_types::Bytes;

use super::lab::Lab;
use crate::course::figure::{Bar, Figure};
use crate::course::samples::Samples;
use crate::process::Workload;
use crate::workload::first_touch::Report;

const NATIVE_TIMES: f64 = 1.5;

const NATIVE: &str = "first touch/native/ns per page";
const RACKMEM: &str = "first touch/rackmem/ns per page";

/// One round.
pub(crate) fn run(lab: &Lab, samples: &mut Samples) -> Result<()> {
    let arguments = ["first-touch", "--size", &lab.size.to_string()];
    let native: Report = Workload::spawn(lab.native(None).args(arguments))?.report()?;
    let server = lab.memory_server(None)?;
    // Nothing has to be evicted: this is about the first touch alone.
    let room = Bytes(lab.size.0 * 2);
    let far: Report = Workload::spawn(lab.far(&server, room, None)?.args(arguments))?.report()?;
    for (name, report) in [(NATIVE, native), (RACKMEM, far)] {
        for ns in report.ns_per_page {
            samples.add(name, ns);
        }
    }
    Ok(())
}

/// The rows of this experiment.
pub(crate) fn figures(samples: &Samples) -> Vec<Figure> {
    let text = |name| samples.median(name).map_or_else(|| "?".to_owned(), |ns| format!("{ns:.0}"));
    let bar = Some((Bar::AtMost, NATIVE_TIMES));
    let detail = format!("{} against {} ns a page", text(RACKMEM), text(NATIVE));
    let figure =
        Figure::ratio("first touch of fresh memory against native", samples.ratio(RACKMEM, NATIVE), bar);
    vec![figure.with_detail(detail)]
}
