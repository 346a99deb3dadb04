//! The kernel's cross-connect as a circuit switch: ports are the devices `p0`, `p1`, … of one network namespace, and what comes
//! in at one is redirected to another before any protocol sees it (`tc`: clsact, u32, mirred). No process carries packets.
//!
//! What the switch has to remember is kept where its circuits are: the generation is the alias of the namespace's loopback
//! device, which nobody uses otherwise. So it lives and dies with them, whatever becomes of the controller. The lock is one on the
//! namespace's file; it orders whoever changes the switch, across processes.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;

use crate::change::{Edit, Redirects};
use crate::driver::check_generation;
use crate::{Change, Observed, SwitchDriver, SwitchError, change, iproute};

/// Where iproute2 keeps the namespaces that have names.
const NAMESPACES: &str = "/run/netns";

/// What the alias of the loopback device begins with.
const GENERATION: &str = "generation ";

/// A cross-connect between the devices of a network namespace.
#[derive(Debug)]
pub struct TcSwitch {
    namespace: String,
}

/// What the switch looks like at one moment.
struct State {
    ports: Vec<u16>,
    generation: u64,
    redirects: Redirects,
}

#[derive(Deserialize)]
struct Device {
    ifname: String,
    ifalias: Option<String>,
}

#[derive(Deserialize)]
struct Filter {
    options: Option<FilterOptions>,
}

#[derive(Deserialize)]
struct FilterOptions {
    #[serde(default)]
    actions: Vec<Action>,
}

#[derive(Deserialize)]
struct Action {
    to_dev: Option<String>,
}

impl TcSwitch {
    /// The switch in `namespace`.
    pub fn open(namespace: &str) -> Result<Self, SwitchError> {
        let switch = Self { namespace: namespace.to_owned() };
        switch.file()?;
        Ok(switch)
    }

    fn file(&self) -> Result<File, SwitchError> {
        let unusable = |reason| SwitchError::NoSwitch { namespace: self.namespace.clone(), reason };
        if self.namespace.is_empty() || self.namespace.contains('/') {
            return Err(unusable(std::io::Error::other("this is not the name of a namespace")));
        }
        File::open(Path::new(NAMESPACES).join(&self.namespace)).map_err(unusable)
    }

    /// Nobody else changes the switch as long as this file is open.
    fn lock(&self) -> Result<File, SwitchError> {
        let file = self.file()?;
        flock(&file, FlockOperation::LockExclusive).map_err(|error| SwitchError::NoSwitch {
            namespace: self.namespace.clone(),
            reason: error.into(),
        })?;
        Ok(file)
    }

    fn batch(&self, program: &'static str, lines: &[String]) -> Result<Vec<u8>, SwitchError> {
        iproute::batch(program, Some(&self.namespace), lines)
    }

    fn state(&self) -> Result<State, SwitchError> {
        let line = ["link show".to_owned()];
        let answers: Vec<Vec<Device>> = self.parsed("ip", &line)?;
        let devices: Vec<Device> = answers.into_iter().flatten().collect();
        let alias = devices.iter().find_map(|device| device.ifalias.as_deref()?.strip_prefix(GENERATION));
        let generation = alias.and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut ports: Vec<u16> = devices.iter().filter_map(|device| port(&device.ifname)).collect();
        ports.sort_unstable();
        let lines: Vec<String> =
            ports.iter().map(|port| format!("filter show dev p{port} ingress")).collect();
        let filters: Vec<Vec<Filter>> = self.parsed("tc", &lines)?;
        let target = |filters: &Vec<Filter>| {
            let actions =
                filters.iter().filter_map(|filter| filter.options.as_ref()).flat_map(|one| &one.actions);
            actions.filter_map(|action| port(action.to_dev.as_deref()?)).next()
        };
        let redirects =
            ports.iter().zip(&filters).filter_map(|(from, filters)| Some((*from, target(filters)?)));
        Ok(State { generation, redirects: redirects.collect(), ports })
    }

    /// What `program` answers to `lines`: one JSON value for each.
    fn parsed<T: for<'a> Deserialize<'a>>(
        &self,
        program: &'static str,
        lines: &[String],
    ) -> Result<Vec<T>, SwitchError> {
        let output = self.batch(program, lines)?;
        let values: Result<Vec<T>, _> = serde_json::Deserializer::from_slice(&output).into_iter().collect();
        let strange = |words: String| SwitchError::Program {
            command: format!("{program} {}", lines.join("; ")),
            words,
        };
        let values = values.map_err(|error| strange(format!("its answer is not understood: {error}")))?;
        if values.len() != lines.len() {
            return Err(strange(format!("{} answers to {} questions", values.len(), lines.len())));
        }
        Ok(values)
    }

    fn remember(&self, generation: u64) -> Result<(), SwitchError> {
        self.batch("ip", &[format!("link set dev lo alias \"{GENERATION}{generation}\"")]).map(drop)
    }

    fn edit(&self, edits: &[Edit]) -> Result<(), SwitchError> {
        let lines: Vec<String> = edits.iter().flat_map(|edit| commands(*edit)).collect();
        self.batch("tc", &lines).map(drop)
    }

    /// Restores `before` after a change that failed half way.
    fn restored(&self, before: &Redirects, failure: SwitchError) -> SwitchError {
        let restored = self.state().and_then(|now| self.edit(&change::edits(&now.redirects, before)));
        match restored {
            Ok(()) => failure,
            Err(restoring) => SwitchError::Torn { failure: failure.into(), restoring: restoring.into() },
        }
    }
}

impl SwitchDriver for TcSwitch {
    fn ports(&self) -> Result<Vec<u16>, SwitchError> {
        Ok(self.state()?.ports)
    }

    fn observed(&self) -> Result<Observed, SwitchError> {
        let state = self.state()?;
        Ok(Observed { generation: state.generation, pairs: change::circuits(&state.redirects) })
    }

    fn change(&self, change: &Change, generation: u64) -> Result<Observed, SwitchError> {
        let _locked = self.lock()?;
        let state = self.state()?;
        check_generation(generation, state.generation)?;
        let pairs = change::after(&state.ports, &change::circuits(&state.redirects), change)?;
        if generation > state.generation {
            self.remember(generation)?;
        }
        let edits = change::edits(&state.redirects, &change::redirects(&pairs));
        if let Err(failure) = self.edit(&edits) {
            return Err(self.restored(&state.redirects, failure));
        }
        Ok(Observed { generation, pairs })
    }
}

/// The port that a device is.
fn port(device: &str) -> Option<u16> {
    device.strip_prefix('p')?.parse().ok()
}

/// A port has one filter at most, which takes everything.
fn commands(edit: Edit) -> Vec<String> {
    match edit {
        Edit::Clear(port) => vec![format!("filter del dev p{port} ingress")],
        Edit::Set(from, to) => vec![
            format!("qdisc replace dev p{from} clsact"),
            format!(
                "filter add dev p{from} ingress protocol all pref 1 u32 match u32 0 0 action mirred egress redirect dev p{to}"
            ),
        ],
    }
}
