//! Why not: the limit that was hit, and brick by brick.

use std::fmt;

use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};

use super::compute;
use super::place::{Search, offers_model};
use crate::graph::{Brick, Node, Power, Role};
use crate::reservation::pages_of;
use crate::{GroupNeed, LatencyClass, Name, Rack, RackError, Request};

/// A request that cannot be met, and the limit that it hit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Refusal {
    /// The brick that it is about; none if it is about all.
    pub brick: Option<Name>,
    /// What is short.
    pub shortage: Shortage,
}

/// What is short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shortage {
    /// The brick named is no compute brick.
    NotCompute,
    /// It is to be removed.
    Draining,
    /// It does not answer.
    Silent,
    /// Its cores are taken.
    Cores {
        /// Free cores.
        free: u32,
        /// Cores asked for.
        asked: u32,
    },
    /// Its local memory is taken.
    Local {
        /// Free local memory.
        free: Bytes,
        /// Local memory asked for.
        asked: Bytes,
    },
    /// Its NetPort table is full.
    NetPorts(usize),
    /// Its far address space has no gap of that size.
    FarAddresses,
    /// Too little memory within the class.
    Memory {
        /// The class that was asked for.
        class: LatencyClass,
        /// What was asked for.
        asked: Bytes,
        /// Free on powered bricks in that class.
        free: Bytes,
        /// Free on bricks in that class that could be woken.
        asleep: Bytes,
    },
    /// Enough memory, but not on so few bricks, or not behind free ports.
    Ways {
        /// The class that was asked for.
        class: LatencyClass,
        /// What was asked for.
        asked: Bytes,
        /// Over how many bricks it might be spread.
        spread: u8,
    },
    /// No way to all memory of a shared group within the class.
    Shared {
        /// The group.
        group: Name,
        /// The class that was asked for.
        class: LatencyClass,
    },
    /// No accelerator of that kind within the class.
    Accelerator {
        /// The class that was asked for.
        class: LatencyClass,
        /// Slots asked for.
        slots: u32,
    },
    /// No compute brick has cores and local memory and the memory around it.
    Compute {
        /// Cores asked for.
        cores: u32,
        /// Local memory asked for.
        local: Bytes,
        /// Far memory asked for.
        far: Bytes,
        /// The class that it was asked in.
        class: LatencyClass,
        /// Whether some have these, and enough memory somewhere in the class.
        fitting: bool,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(brick) = &self.brick {
            write!(f, "{brick}: ")?;
        }
        write!(f, "{}", self.shortage)
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCompute => write!(f, "is no compute brick"),
            Self::Draining => write!(f, "drains and takes nothing new"),
            Self::Silent => write!(f, "does not answer"),
            Self::Cores { free, asked } => write!(f, "{free} cores are free, {asked} are asked for"),
            Self::Local { free, asked } => {
                write!(f, "{free} of local memory are free, {asked} are asked for")
            }
            Self::NetPorts(max) => write!(f, "its NetPort table holds {max} entries and has no room"),
            Self::FarAddresses => write!(f, "its far address space has no gap of that size"),
            Self::Memory { class, asked, free, asleep } => write!(
                f,
                "{asked} within class {class} are asked for; {free} are free on bricks that are on, {asleep} on bricks that are off"
            ),
            Self::Ways { class, asked, spread } => write!(
                f,
                "{asked} within class {class} are free, but not on {spread} or fewer bricks with free ports on the way"
            ),
            Self::Shared { group, class } => {
                write!(f, "not all memory of the shared group '{group}' can be reached within class {class}")
            }
            Self::Accelerator { class, slots } => {
                write!(
                    f,
                    "no accelerator brick within class {class} has {slots} free slots and a free way to it"
                )
            }
            Self::Compute { cores, local, far, class, fitting: false } => {
                let way = format!("a way to {far} of far memory within class {class}");
                match (own(*cores, *local), *far) {
                    (None, _) => write!(f, "no compute brick has {way}"),
                    (Some(own), Bytes(0)) => write!(f, "no compute brick has {own} free"),
                    (Some(own), _) => write!(f, "no compute brick has {own} free and {way}"),
                }
            }
            Self::Compute { cores, local, class, fitting: true, .. } => {
                let own = own(*cores, *local).map_or_else(String::new, |own| format!(" with {own} free"));
                write!(
                    f,
                    "there are compute bricks{own}, but none has a way to the rest within class {class}"
                )
            }
        }
    }
}

/// What a compute brick has to have itself, if anything.
fn own(cores: u32, local: Bytes) -> Option<String> {
    let cores_told = if cores == 1 { "1 core".to_owned() } else { format!("{cores} cores") };
    match (cores, local) {
        (0, Bytes(0)) => None,
        (_, Bytes(0)) => Some(cores_told),
        (0, _) => Some(format!("{local} of local memory")),
        (_, _) => Some(format!("{cores_told} and {local} of local memory")),
    }
}

impl From<Refusal> for RackError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl Refusal {
    pub(super) fn named(brick: &Name, shortage: Shortage) -> Self {
        Self { brick: Some(brick.clone()), shortage }
    }

    /// What the surroundings of `brick` are short of.
    pub(super) fn memory(rack: &Rack, brick: &Brick, request: &Request) -> Self {
        let class = request.class;
        let shelf = rack.index.shelf(Role::Memory, class, brick.site);
        let (free, asleep) = shelf.map_or((0, 0), |shelf| (shelf.free_on, shelf.free_off));
        let need = pages_of(request.memory);
        let shortage = if need > free + asleep {
            let (free, asleep) = (Bytes::from_pages(free), Bytes::from_pages(asleep));
            Shortage::Memory { class, asked: request.memory, free, asleep }
        } else if let Some(GroupNeed::Join(name)) = &request.group {
            Shortage::Shared { group: name.clone(), class }
        } else {
            let memory_fits = || {
                rack.graph.brick_node(brick.name()).is_ok_and(|node| {
                    let alone = Request { accelerator: None, ..request.clone() };
                    need == 0 || super::reserve::surroundings(rack, node, &alone, true).is_some()
                })
            };
            match &request.accelerator {
                Some(accelerator) if memory_fits() => {
                    Shortage::Accelerator { class, slots: accelerator.slots }
                }
                _ => Shortage::Ways { class, asked: request.memory, spread: request.spread },
            }
        };
        Self::named(brick.name(), shortage)
    }

    pub(super) fn anywhere(request: &Request, fitting: bool) -> Self {
        Self {
            brick: None,
            shortage: Shortage::Compute {
                cores: request.cores,
                local: request.local,
                far: request.memory,
                class: request.class,
                fitting,
            },
        }
    }
}

/// What a single brick means for a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The brick.
    pub brick: Name,
    /// Its kind.
    pub role: Role,
    /// Whether it could serve, alone or as one of several.
    pub serves: bool,
    /// Why, as a sentence.
    pub why: String,
}

/// Brick by brick, what each means for the request: compute bricks, and for the brick named (or the first that would do) memory and
/// accelerator bricks. Looks at every brick, so it is for people, not for every decision.
pub fn why(rack: &Rack, request: &Request) -> Result<Vec<Reason>, RackError> {
    let mut reasons = Vec::new();
    let mut from = None;
    for (node, brick) in rack.graph.brick_nodes().filter(|(_, brick)| brick.role() == Role::Compute) {
        if request.compute.as_ref().is_some_and(|name| name != brick.name()) {
            continue;
        }
        let shortage = compute::shortage(brick, request);
        let serves = shortage.is_none();
        let why = shortage.map_or_else(
            || Refusal::memory(rack, brick, request).shortage.to_string(),
            |shortage| shortage.to_string(),
        );
        let fits = serves && super::reserve::surroundings(rack, node, request, true).is_some();
        let why = if fits { "fits".to_owned() } else { why };
        if from.is_none() && (serves || request.compute.is_some()) {
            from = Some(node);
        }
        reasons.push(Reason { brick: brick.name().clone(), role: Role::Compute, serves: fits, why });
    }
    if let Some(name) = &request.compute {
        rack.brick(name)?;
    }
    if let Some(from) = from {
        let others = rack.graph.brick_nodes().filter(|(_, brick)| brick.role() != Role::Compute);
        reasons.extend(others.filter_map(|(node, brick)| remote(rack, from, node, brick, request)));
    }
    Ok(reasons)
}

/// What a memory or accelerator brick means for a request from the compute brick at `from`.
fn remote(rack: &Rack, from: Node, node: Node, brick: &Brick, request: &Request) -> Option<Reason> {
    let model = match (&request.accelerator, brick.role()) {
        (None, Role::Accelerator) => return None,
        (Some(accelerator), Role::Accelerator) => accelerator.model.as_deref(),
        _ => None,
    };
    let distance = rack.graph.brick_at(from)?.site.distance(brick.site);
    let asleep = if brick.power() == Power::Off { " after waking it" } else { "" };
    let free = match brick.role() {
        Role::Memory => Bytes::from_pages(brick.free()).to_string(),
        _ => format!("{} slots", brick.free()),
    };
    let mut search = Search::new(rack, from);
    let (serves, why) = if brick.is_draining() {
        (false, "drains and takes nothing new".to_owned())
    } else if !brick.is_reachable() {
        (false, "does not answer".to_owned())
    } else if brick.free() == 0 {
        (false, "nothing of it is free".to_owned())
    } else if model.is_some_and(|model| !offers_model(brick, model)) {
        (false, "is of another model".to_owned())
    } else if distance > request.class {
        (false, format!("{free} are free, but it is of class {distance}"))
    } else if search.via(node, request.class).is_some() {
        (true, format!("{free} are free{asleep}"))
    } else if !rack.graph.has_free_port(brick) {
        (false, format!("{free} are free, but all of its ports are taken or without a cable"))
    } else if search.via(node, LatencyClass::Interrack).is_some() {
        (false, format!("{free} are free, but the only way there is wider than class {}", request.class))
    } else {
        (false, format!("{free} are free, but no free ports lead there"))
    };
    Some(Reason { brick: brick.name().clone(), role: brick.role(), serves, why })
}
