//! What every switch can do, and how the right driver is found for one.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Change, Pair, SimSwitch, SwitchError, TcSwitch};

/// What is really set on a switch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// The highest generation that changed it; 0 if none did.
    pub generation: u64,
    /// Its circuits.
    pub pairs: BTreeSet<Pair>,
}

/// One circuit switch. Calls block, for some milliseconds at most.
pub trait SwitchDriver: Send + Sync + Debug {
    /// Its ports, in order.
    fn ports(&self) -> Result<Vec<u16>, SwitchError>;

    /// What is set on it, asked of the switch itself.
    fn observed(&self) -> Result<Observed, SwitchError>;

    /// Makes `change` in the name of `generation`: all of it, or on an error nothing. The circuits that end are ended first.
    /// Made twice, it is as if it had been made once. A generation smaller than the switch's is refused.
    fn change(&self, change: &Change, generation: u64) -> Result<Observed, SwitchError>;

    /// Sets circuits.
    fn connect(&self, pairs: &[Pair], generation: u64) -> Result<Observed, SwitchError> {
        self.change(&Change { connect: pairs.to_vec(), ..Change::default() }, generation)
    }

    /// Ends circuits.
    fn disconnect(&self, pairs: &[Pair], generation: u64) -> Result<Observed, SwitchError> {
        self.change(&Change { disconnect: pairs.to_vec(), ..Change::default() }, generation)
    }
}

/// Where a switch is: `tc:NAMESPACE` is the kernel's cross-connect there, `sim:PORTS` a new one in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwitchAddress {
    /// The kernel's cross-connect in this network namespace.
    Tc(String),
    /// One in memory with so many ports.
    Sim(u16),
}

impl FromStr for SwitchAddress {
    type Err = SwitchError;

    fn from_str(text: &str) -> Result<Self, SwitchError> {
        let unknown = || SwitchError::Address(text.to_owned());
        match text.split_once(':').ok_or_else(unknown)? {
            ("tc", namespace) if !namespace.is_empty() => Ok(Self::Tc(namespace.to_owned())),
            ("sim", ports) => Ok(Self::Sim(ports.parse().map_err(|_| unknown())?)),
            _ => Err(unknown()),
        }
    }
}

/// The switch at `address`, which reads like a [`SwitchAddress`].
pub fn open(address: &str) -> Result<Box<dyn SwitchDriver>, SwitchError> {
    match address.parse()? {
        SwitchAddress::Tc(namespace) => Ok(Box::new(TcSwitch::open(&namespace)?)),
        SwitchAddress::Sim(ports) => Ok(Box::new(SimSwitch::new(ports))),
    }
}

/// Refuses a generation that the switch has seen a newer one of.
pub(crate) fn check_generation(generation: u64, present: u64) -> Result<(), SwitchError> {
    if generation < present {
        return Err(SwitchError::Overtaken { generation, present });
    }
    Ok(())
}
