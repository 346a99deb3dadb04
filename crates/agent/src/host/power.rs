//! Power: measured by the processor's own energy counters (RAPL) where there are some, else modelled from how busy the
//! processors are. A modelled number says that it is one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rackmem_api::agent::{Power, PowerSource};
use tokio::time::{Instant, sleep};

use super::{cores, memory, read};

/// Time between two looks at the counters: they change about a thousand times a second.
const INTERVAL: Duration = Duration::from_millis(50);

/// The model: a server core of the last decade draws about 1 W at rest and 8 W when busy (SPECpower results, per core),
/// its board and fans about 20 W, and memory about 0.35 W a GiB.
const BOARD_WATTS: f64 = 20.0;
const CORE_IDLE_WATTS: f64 = 1.0;
const CORE_BUSY_WATTS: f64 = 8.0;
const GIB_WATTS: f64 = 0.35;

/// Power now.
pub(crate) async fn power() -> Power {
    let zones = zones(Path::new("/sys/class/powercap"));
    let (before, busy_before, begin) = (energy_uj(&zones), busy(), Instant::now());
    sleep(INTERVAL).await;
    let seconds = begin.elapsed().as_secs_f64();
    match (before, energy_uj(&zones)) {
        // A counter that has wrapped around counts as none, once in hours.
        (Some(before), Some(after)) if after >= before => Power {
            watts: (after - before) as f64 / 1e6 / seconds,
            source: PowerSource::Rapl,
            basis: format!("measured by {} energy counters of the processor packages", zones.len()),
        },
        _ => model(share_busy(busy_before, busy())),
    }
}

fn model(busy: f64) -> Power {
    let (cores, gib) = (f64::from(cores()), memory().total.0 as f64 / (1u64 << 30) as f64);
    let watts = BOARD_WATTS
        + cores * (CORE_IDLE_WATTS + (CORE_BUSY_WATTS - CORE_IDLE_WATTS) * busy)
        + gib * GIB_WATTS;
    Power {
        watts,
        source: PowerSource::Modelled,
        basis: format!(
            "not measured: this machine shows no energy counters; modelled from {cores} cores, {:.0} % busy, and {gib:.0} GiB of RAM",
            busy * 100.0
        ),
    }
}

/// The counters of whole packages; those inside of them would count twice.
fn zones(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with("intel-rapl:") && name.matches(':').count() == 1
        })
        .collect()
}

fn energy_uj(zones: &[PathBuf]) -> Option<u64> {
    let energy = |zone: &PathBuf| read(zone.join("energy_uj").to_str()?)?.trim().parse::<u64>().ok();
    if zones.is_empty() { None } else { zones.iter().map(energy).sum() }
}

/// Ticks in which the processors worked, and all ticks.
fn busy() -> (u64, u64) {
    let stat = read("/proc/stat").unwrap_or_default();
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .into_iter()
        .flat_map(|line| line.split_whitespace().skip(1).take(8))
        .filter_map(|number| number.parse().ok())
        .collect();
    let all: u64 = ticks.iter().sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    (all - idle, all)
}

fn share_busy(before: (u64, u64), after: (u64, u64)) -> f64 {
    let (busy, all) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
    if all == 0 { 0.0 } else { busy as f64 / all as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_packages_count() {
        let directory = tempfile::tempdir().unwrap();
        for (zone, energy) in
            [("intel-rapl:0", "100\n"), ("intel-rapl:1", "50\n"), ("intel-rapl:0:0", "90\n"), ("dtpm", "")]
        {
            std::fs::create_dir(directory.path().join(zone)).unwrap();
            std::fs::write(directory.path().join(zone).join("energy_uj"), energy).unwrap();
        }
        assert_eq!(energy_uj(&zones(directory.path())), Some(150));
        assert_eq!(energy_uj(&[]), None);
    }

    #[test]
    fn a_model_is_called_one_and_rises_with_work() {
        let (idle, full) = (model(0.0), model(1.0));
        assert_eq!(idle.source, PowerSource::Modelled);
        assert!(idle.basis.contains("not measured"));
        assert!(full.watts > idle.watts && idle.watts > BOARD_WATTS);
    }
}
