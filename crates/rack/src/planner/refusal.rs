//! Why not: the limit that was hit, and brick by brick.

use std::fmt;

use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};

use super::place::{Search, offers_model};
use super::{compute, reserve};
use crate::graph::{Brick, Node, Power, Role};
use crate::reservation::pages_of;
use crate::{AcceleratorNeed, GroupNeed, LatencyClass, Name, Rack, RackError, Request, ReservationId};

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
        /// What there is.
        around: Around,
    },
    /// What a reservation has on a brick that is being emptied finds no other place.
    Elsewhere {
        /// The reservation.
        reservation: ReservationId,
        /// The class that it was asked in.
        class: LatencyClass,
        /// What it has there.
        asked: Bytes,
        /// Over how many bricks it might be spread.
        spread: u8,
        /// What there is on other bricks.
        around: Around,
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
        /// Its bricks that cannot be reached, each with what is wrong; none if it is not one brick's fault.
        obstacles: Vec<String>,
    },
    /// Every compute brick that takes something new is in the shared group.
    Joined {
        /// The group.
        group: Name,
    },
    /// No accelerator of that kind within the class.
    Accelerator {
        /// The class that was asked for.
        class: LatencyClass,
        /// What was asked for.
        need: AcceleratorNeed,
    },
    /// No accelerator of that kind anywhere.
    Slots(AcceleratorNeed),
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

/// Memory within a class of a compute brick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Around {
    /// Free on powered bricks.
    pub free: Bytes,
    /// Free on bricks that could be woken.
    pub asleep: Bytes,
    /// Free on bricks that do not answer, as far as is known.
    pub silent: Bytes,
}

impl Around {
    /// What there is within `class` of the compute brick `compute`.
    pub(super) fn of(rack: &Rack, compute: &Name, class: LatencyClass) -> Self {
        let site = rack.brick(compute).map(|brick| brick.site).unwrap_or_default();
        rack.index.shelf(Role::Memory, class, site).map_or_else(Self::default, |shelf| Self {
            free: Bytes::from_pages(shelf.free_on + shelf.free_closed),
            asleep: Bytes::from_pages(shelf.free_off),
            silent: Bytes::from_pages(shelf.free_silent),
        })
    }

    /// The same without a brick.
    pub(super) fn forget(&mut self, brick: &Brick) {
        let free = Bytes::from_pages(brick.free());
        let of = if brick.power() == Power::Off { &mut self.asleep } else { &mut self.free };
        of.0 = of.0.saturating_sub(free.0);
    }

    /// What can be used, if need be after waking bricks.
    fn usable(self) -> Bytes {
        Bytes(self.free.0 + self.asleep.0)
    }

    /// What would be there too if it answered, as the end of a sentence.
    fn silent_too(self) -> String {
        match self.silent {
            Bytes(0) => String::new(),
            silent => format!(", {silent} on bricks that do not answer"),
        }
    }
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
            Self::Memory { class, asked, around } => write!(
                f,
                "{asked} within class {class} are asked for; {} are free on bricks that are on, {} on bricks that are off{}",
                around.free,
                around.asleep,
                around.silent_too()
            ),
            Self::Elsewhere { reservation, class, asked, spread, around } => {
                write!(
                    f,
                    "reservation {reservation} needs {asked} elsewhere within class {class}; {} are free there{}",
                    around.usable(),
                    around.silent_too()
                )?;
                if around.usable() < *asked {
                    return Ok(());
                }
                write!(f, ", but not on {spread} or fewer bricks with free ports on the way")
            }
            Self::Ways { class, asked, spread } => write!(
                f,
                "{asked} within class {class} are free, but not on {spread} or fewer bricks with free ports on the way"
            ),
            Self::Shared { group, class, obstacles } => {
                write!(
                    f,
                    "not all memory of the shared group '{group}' can be reached within class {class}"
                )?;
                if obstacles.is_empty() { Ok(()) } else { write!(f, ": {}", obstacles.join(", ")) }
            }
            Self::Joined { group } => {
                write!(
                    f,
                    "every compute brick that takes something new is in the shared group '{group}' already"
                )
            }
            Self::Accelerator { class, need } => {
                let (model, slots) = (of_model(need), slots_told(need.slots));
                write!(
                    f,
                    "no accelerator brick{model} within class {class} has {slots} free and a free way to it"
                )
            }
            Self::Slots(need) => {
                write!(f, "no accelerator brick{} has {} free", of_model(need), slots_told(need.slots))
            }
            Self::Compute { cores, local, far, class, fitting: false } => {
                let way = format!("a way to {far} of far memory within class {class}");
                match (own(*cores, *local), *far) {
                    (None, Bytes(0)) => {
                        write!(
                            f,
                            "no compute brick takes anything new: they drain, do not answer, or have no core free"
                        )
                    }
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

fn of_model(need: &AcceleratorNeed) -> String {
    need.model.as_ref().map_or_else(String::new, |model| format!(" of the model '{model}'"))
}

fn slots_told(slots: u32) -> String {
    if slots == 1 { "1 slot".to_owned() } else { format!("{slots} slots") }
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
        let around = Around::of(rack, brick.name(), class);
        let need = pages_of(request.memory);
        let shortage = if need > around.usable().pages() {
            Shortage::Memory { class, asked: request.memory, around }
        } else if let Some(GroupNeed::Join(name)) = &request.group {
            let from = rack.graph.brick_node(brick.name()).ok().map(|node| (node, class));
            let obstacles = reserve::obstacles(rack, name, from);
            Shortage::Shared { group: name.clone(), class, obstacles }
        } else {
            let memory_fits = || {
                rack.graph.brick_node(brick.name()).is_ok_and(|node| {
                    let alone = Request { accelerator: None, ..request.clone() };
                    need == 0 || reserve::surroundings(rack, node, &alone, true).is_some()
                })
            };
            match &request.accelerator {
                Some(accelerator) if memory_fits() => {
                    Shortage::Accelerator { class, need: accelerator.clone() }
                }
                _ => Shortage::Ways { class, asked: request.memory, spread: request.spread },
            }
        };
        Self::named(brick.name(), shortage)
    }

    /// Why no compute brick could be found; `fitting` if some have what they have to have themselves.
    pub(super) fn anywhere(rack: &Rack, request: &Request, fitting: bool) -> Self {
        let beside = if fitting { beside(rack, request) } else { None };
        let shortage = beside.unwrap_or(Shortage::Compute {
            cores: request.cores,
            local: request.local,
            far: request.memory,
            class: request.class,
            fitting,
        });
        Self { brick: None, shortage }
    }
}

/// What is short for every compute brick alike, if that is no far memory of one's own.
fn beside(rack: &Rack, request: &Request) -> Option<Shortage> {
    if let Some(GroupNeed::Join(name)) = &request.group {
        let group = name.clone();
        let takes = rack.bricks().filter(|brick| compute::shortage(brick, request).is_none());
        let mut others = takes.filter(|brick| reserve::membership(rack, name, brick.name()).is_none());
        if others.next().is_none() {
            return Some(Shortage::Joined { group });
        }
        let obstacles = reserve::obstacles(rack, name, None);
        return Some(Shortage::Shared { group, class: request.class, obstacles });
    }
    let need = request.accelerator.as_ref()?;
    let mut all = rack.bricks().filter(|brick| brick.role() == Role::Accelerator && brick.takes_more());
    let offers = |brick: &Brick| need.model.as_ref().is_none_or(|model| offers_model(brick, model));
    let is_there = all.any(|brick| offers(brick) && brick.free() >= need.slots.into());
    (!is_there).then(|| Shortage::Slots(need.clone()))
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
///
/// Where the shared group is not there that the request names, no brick means anything for it, and that is the error.
pub fn why(rack: &Rack, request: &Request) -> Result<Vec<Reason>, RackError> {
    let joins = match &request.group {
        Some(GroupNeed::Join(name)) => Some(name),
        _ => None,
    };
    if let Some(problem) = joins.and_then(|name| reserve::nothing_to_join(rack, name, &request.project)) {
        return Err(RackError::Request(problem));
    }
    let mut reasons = Vec::new();
    let mut from = None;
    for (node, brick) in rack.graph.brick_nodes().filter(|(_, brick)| brick.role() == Role::Compute) {
        if request.compute.as_ref().is_some_and(|name| name != brick.name()) {
            continue;
        }
        let member = joins.and_then(|name| Some((name, reserve::membership(rack, name, brick.name())?)));
        let shortage = match member {
            Some((name, id)) => Some(format!("is in the shared group '{name}' already, by reservation {id}")),
            None => compute::shortage(brick, request).map(|shortage| shortage.to_string()),
        };
        let serves = shortage.is_none();
        let fits = serves && reserve::surroundings(rack, node, request, true).is_some();
        let why = match shortage {
            _ if fits => "fits".to_owned(),
            Some(shortage) => shortage,
            None => Refusal::memory(rack, brick, request).shortage.to_string(),
        };
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
    if let (Some(GroupNeed::Join(name)), Role::Memory) = (&request.group, brick.role()) {
        return shared(rack, from, node, brick, (name, request.class));
    }
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

/// What a memory brick means for who joins a group; none if nothing of the group lies on it.
fn shared(
    rack: &Rack,
    from: Node,
    node: Node,
    brick: &Brick,
    (group, class): (&Name, LatencyClass),
) -> Option<Reason> {
    let segments = rack.groups.get(group)?.iter().filter_map(|id| rack.segment(*id));
    let here: Vec<_> = segments.filter(|segment| segment.brick == *brick.name()).collect();
    here.first()?;
    let mut search = Search::new(rack, from);
    let wrong = if !brick.is_reachable() {
        Some("it does not answer".to_owned())
    } else if here.iter().any(|segment| rack.is_lost(segment)) {
        Some("it has lost some of that".to_owned())
    } else if search.via(node, class).is_some() {
        None
    } else if !rack.graph.has_free_port(brick) {
        Some("all of its ports are taken or without a cable".to_owned())
    } else if search.via(node, LatencyClass::Interrack).is_some() {
        Some(format!("the only way there is wider than class {class}"))
    } else {
        Some("no free ports lead there".to_owned())
    };
    let holds = format!("has memory of the shared group '{group}'");
    let serves = wrong.is_none();
    let why = wrong.map_or(holds.clone(), |wrong| format!("{holds}, but {wrong}"));
    Some(Reason { brick: brick.name().clone(), role: brick.role(), serves, why })
}
