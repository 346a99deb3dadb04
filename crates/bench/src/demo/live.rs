//! The statistics of a target, followed in the background for the progress display.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rackmem_control::TargetStats;

use crate::product::Product;

const INTERVAL: Duration = Duration::from_millis(250);

/// Follows one target until it is dropped.
#[derive(Debug)]
pub(crate) struct Live {
    latest: Arc<Mutex<Option<(TargetStats, f64)>>>,
    ended: Arc<AtomicBool>,
}

impl Live {
    pub(crate) fn follow(product: &Product, pid: u32) -> Self {
        let live = Self { latest: Arc::default(), ended: Arc::default() };
        let (product, latest, ended) = (product.clone(), Arc::clone(&live.latest), Arc::clone(&live.ended));
        thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                // A target that has just ended, or is not there yet, leaves the last numbers standing.
                if let Ok(Some(stats)) = product.stats(pid) {
                    let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
                    let rate = latest.as_ref().map_or(0.0, |(before, _)| faults_per_second(before, &stats));
                    *latest = Some((stats, rate));
                }
                thread::sleep(INTERVAL);
            }
        });
        live
    }

    /// The latest numbers in a line.
    pub(crate) fn line(&self) -> String {
        match &*self.latest.lock().unwrap_or_else(PoisonError::into_inner) {
            None => String::new(),
            Some((stats, rate)) => {
                let (local, far, p50) = (stats.local, stats.far, stats.fault_latency.p50_us);
                format!("local {local}  far {far}  {rate:.0} faults/s  p50 {p50:.0} µs")
            }
        }
    }
}

fn faults_per_second(before: &TargetStats, after: &TargetStats) -> f64 {
    let seconds = after.uptime_us.saturating_sub(before.uptime_us) as f64 / 1e6;
    if seconds > 0.0 { after.faults.saturating_sub(before.faults) as f64 / seconds } else { 0.0 }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}
