//! A switch in memory, for simulated racks. It lives as long as the value.

use std::sync::{Mutex, PoisonError};

use crate::driver::check_generation;
use crate::{Change, Observed, SwitchDriver, SwitchError, change};

/// A switch without light or wires.
#[derive(Debug)]
pub struct SimSwitch {
    ports: Vec<u16>,
    state: Mutex<Observed>,
}

impl SimSwitch {
    /// A switch with ports 0 to `ports` − 1, none of them connected.
    pub fn new(ports: u16) -> Self {
        Self { ports: (0..ports).collect(), state: Mutex::default() }
    }
}

impl SwitchDriver for SimSwitch {
    fn ports(&self) -> Result<Vec<u16>, SwitchError> {
        Ok(self.ports.clone())
    }

    fn observed(&self) -> Result<Observed, SwitchError> {
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn change(&self, change: &Change, generation: u64) -> Result<Observed, SwitchError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        check_generation(generation, state.generation)?;
        let pairs = change::after(&self.ports, &state.pairs, change)?;
        *state = Observed { generation, pairs };
        Ok(state.clone())
    }
}
