//! How a controller is set up.

use std::path::PathBuf;
use std::time::Duration;

use rackmem_api::serve::Closing;
use rackmem_rack::Quotas;

use crate::compute::Images;

/// How a controller is set up.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// Where it keeps its state.
    pub state: PathBuf,
    /// What serves the controller. It fails when nothing can be kept any more, and before anybody could be shown what was not kept;
    /// whoever started the controller ends it then.
    pub closing: Closing,
    /// What projects may have.
    pub quotas: Quotas,
    /// Where members' images lie on the compute bricks; without it members name no files.
    pub images: Option<Images>,
    /// Operations that may be running or wait; further ones are refused for a while.
    pub queue: usize,
    /// Reservations that are carried out at the same time.
    pub workers: usize,
    /// How often bricks and switches are asked how they are.
    pub watch_every: Duration,
    /// For tests: the store takes so many changes and then nothing more, as if the controller had been killed.
    pub dies_at: Option<u64>,
}

/// Room for a burst of ten thousand requests, and some more: about 30 MiB.
const QUEUE_DEFAULT: usize = 16_384;

/// Mostly they wait for agents, so there are many more than processors.
const WORKERS_DEFAULT: usize = 64;

/// A brick that went away is known after twice this at most.
const WATCH_EVERY: Duration = Duration::from_secs(5);

impl ControllerConfig {
    /// The defaults, with the state in this directory.
    pub fn new(state: impl Into<PathBuf>) -> Self {
        Self {
            state: state.into(),
            closing: Closing::default(),
            quotas: Quotas::default(),
            images: None,
            queue: QUEUE_DEFAULT,
            workers: WORKERS_DEFAULT,
            watch_every: WATCH_EVERY,
            dies_at: None,
        }
    }
}
