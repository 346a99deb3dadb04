//! Plans that add: a new reservation, and more memory for one that is there.

use rackmem_types::Bytes;

use super::compute;
use super::place::{Need, Piece, Search, Via};
use super::refusal::{Refusal, Shortage};
use super::{Grant, Plan, Purpose, steps};
use crate::graph::{NETPORTS_MAX, Node, Power, Role};
use crate::id::{PARTS_MAX, RESERVATION_MAX};
use crate::reservation::pages_of;
use crate::{
    AcceleratorGrant, CircuitId, GroupNeed, LatencyClass, Mapping, Name, Rack, RackError, Request,
    Reservation, ReservationId, Segment, SegmentId, State,
};

/// Most memory bricks that one request may be spread over: each is a way to lose the virtual machine.
pub const SPREAD_MAX: u8 = 16;

/// What was found for a request: pieces of memory, or the way to each segment of a group; and an accelerator.
pub(super) struct Found {
    pub(super) from: Node,
    pub(super) memory: Vec<Piece>,
    pub(super) joined: Vec<(SegmentId, Via)>,
    pub(super) accelerator: Option<Piece>,
}

/// Plans a new reservation with the number `id`. Nothing changes by it.
pub fn reserve(rack: &Rack, id: ReservationId, request: &Request) -> Result<Plan, RackError> {
    check(rack, id, request)?;
    let found = match &request.compute {
        Some(name) => compute::named(rack, name, request)?,
        None => compute::any(rack, request)?,
    };
    let group = match &request.group {
        Some(GroupNeed::Init(name)) => Some(name),
        _ => None,
    };
    let grant = Builder { rack, id, group, segments_made: 0, circuits_made: 0 }.grant(&found)?;
    let steps = steps::attach(rack, &grant);
    let purpose = Purpose::Reserve(Box::new(request.clone()));
    Ok(Plan { parent: rack.generation(), reservation: id, purpose, grant, removed: Vec::new(), steps })
}

/// Plans `more` memory for a reservation that is applied, in its class and within its spread.
pub fn grow(rack: &Rack, id: ReservationId, more: Bytes) -> Result<Plan, RackError> {
    let reservation = super::applied(rack, id)?;
    if reservation.group.is_some() {
        return Err(RackError::Request("shared memory does not grow; make another group".to_owned()));
    }
    if pages_of(more) == 0 {
        return Err(RackError::Request("growing by nothing changes nothing".to_owned()));
    }
    let found = compute::named(rack, &reservation.compute, &reservation.more(more))?;
    let grant = Builder::of(rack, reservation).grant(&found)?;
    let steps = steps::attach(rack, &grant);
    let (parent, removed) = (rack.generation(), Vec::new());
    Ok(Plan { parent, reservation: id, purpose: Purpose::Grow, grant, removed, steps })
}

/// Refuses what makes no sense before anything is looked for.
fn check(rack: &Rack, id: ReservationId, request: &Request) -> Result<(), RackError> {
    if id.0 > RESERVATION_MAX || rack.reservation(id).is_ok() {
        return Err(RackError::ReservationNumber(id));
    }
    let joins = matches!(request.group, Some(GroupNeed::Join(_)));
    let problem = if request.class == LatencyClass::Local && (request.memory.0 > 0 || joins) {
        Some(
            "far memory cannot be of class local; ask for local memory, or for class tray, rack or interrack"
                .to_owned(),
        )
    } else if !(1..=SPREAD_MAX).contains(&request.spread) {
        Some(format!("memory can be spread over 1 to {SPREAD_MAX} bricks, not {}", request.spread))
    } else if joins && request.memory.0 > 0 {
        Some("who joins a group maps its memory and gets none besides".to_owned())
    } else if request.accelerator.as_ref().is_some_and(|accelerator| accelerator.slots == 0) {
        Some("an accelerator of no slots".to_owned())
    } else if request.accelerator.is_some() && request.class == LatencyClass::Local {
        Some("an accelerator is never of class local".to_owned())
    } else {
        match &request.group {
            Some(GroupNeed::Init(name)) if rack.groups.contains_key(name) => Some(format!(
                "the name '{name}' of a shared group is taken: join it, if it is your project's, or take another"
            )),
            Some(GroupNeed::Join(name)) => nothing_to_join(rack, name, &request.project).or_else(|| {
                let compute = request.compute.as_ref()?;
                let member = membership(rack, name, compute)?;
                Some(format!("{compute} is in the shared group '{name}' already, by reservation {member}"))
            }),
            Some(GroupNeed::Init(_)) if pages_of(request.memory) == 0 => {
                Some("a group shares no memory".to_owned())
            }
            None if pages_of(request.memory) == 0
                && request.accelerator.is_none()
                && request.cores == 0
                && request.local.0 == 0 =>
            {
                Some("it asks for nothing".to_owned())
            }
            _ => None,
        }
    };
    problem.map_or(Ok(()), |problem| Err(RackError::Request(problem)))
}

/// Why nobody of the project can join the group, wherever he is; none if somebody can.
pub(super) fn nothing_to_join(rack: &Rack, name: &Name, project: &str) -> Option<String> {
    // What belongs to another project is not there.
    if !is_of_project(rack, name, project) {
        return Some(format!(
            "project '{project}' has no shared group '{name}'; somebody there has to make it first"
        ));
    }
    (!has_memory(rack, name)).then(|| no_memory_yet(rack, name))
}

/// What keeps the compute brick at `from`, or any if there is none, from the group's memory: its bricks, each with what is wrong.
pub(super) fn obstacles(rack: &Rack, name: &Name, from: Option<(Node, LatencyClass)>) -> Vec<String> {
    let segments = rack.groups.get(name).into_iter().flatten().filter_map(|id| rack.segment(*id));
    let mut told: Vec<String> = segments
        .filter_map(|segment| {
            let brick = rack.brick(&segment.brick).ok()?;
            let is_reached = from.is_some_and(|(from, class)| {
                let node = rack.graph.brick_node(brick.name());
                node.is_ok_and(|node| Search::new(rack, from).via(node, class).is_some())
            });
            let what = if !brick.is_reachable() {
                "does not answer"
            } else if rack.is_lost(segment) {
                "has lost some of it"
            } else if !is_reached && !rack.graph.has_free_port(brick) {
                "has no free port"
            } else {
                return None;
            };
            Some(format!("{} {what}", brick.name()))
        })
        .collect();
    told.dedup();
    told
}

/// Whether somebody has made the group's memory, and stays.
fn has_memory(rack: &Rack, name: &Name) -> bool {
    members(rack, name).any(|member| member.state == State::Applied)
}

fn no_memory_yet(rack: &Rack, name: &Name) -> String {
    let of = |state| members(rack, name).find(|member| member.state == state).map(|member| member.id);
    match (of(State::Applying), of(State::Reserved)) {
        (Some(id), _) => {
            format!("the shared group '{name}' is being made by reservation {id}; try again in a moment")
        }
        (None, Some(id)) => format!("the shared group '{name}' is only held; apply reservation {id} first"),
        (None, None) => format!("the last members leave the shared group '{name}'; make another"),
    }
}

/// The reservation by which a compute brick is in the group.
pub(super) fn membership(rack: &Rack, name: &Name, compute: &Name) -> Option<ReservationId> {
    members(rack, name).find(|member| member.compute == *compute).map(|member| member.id)
}

/// Whether the group is of that project; none is of several.
fn is_of_project(rack: &Rack, name: &Name, project: &str) -> bool {
    members(rack, name).any(|member| member.request.project == project)
}

/// The reservations that have a part in the group, once for each of its segments.
fn members<'a>(rack: &'a Rack, name: &Name) -> impl Iterator<Item = &'a Reservation> {
    let segments = rack.groups.get(name).into_iter().flatten().filter_map(|id| rack.segment(*id));
    segments.flat_map(|segment| &segment.users).filter_map(|id| rack.reservation(*id).ok())
}

/// What is needed of one compute brick's surroundings; none if they do not have it.
pub(super) fn surroundings(rack: &Rack, from: Node, request: &Request, wake: bool) -> Option<Found> {
    let mut search = Search::new(rack, from);
    let mut found = Found { from, memory: Vec::new(), joined: Vec::new(), accelerator: None };
    if let Some(GroupNeed::Join(name)) = &request.group {
        let compute = rack.graph.brick_at(from)?.name();
        if !is_of_project(rack, name, &request.project) || membership(rack, name, compute).is_some() {
            return None;
        }
        found.joined = join(rack, &mut search, name, request.class)?;
    }
    let need = Need {
        role: Role::Memory,
        amount: pages_of(request.memory),
        ceiling: request.class,
        spread: request.spread.into(),
        model: None,
        not: None,
        wake,
    };
    if need.amount > 0 {
        found.memory = search.place(&need)?;
    }
    if let Some(accelerator) = &request.accelerator {
        let model = accelerator.model.as_deref();
        let need =
            Need { role: Role::Accelerator, amount: accelerator.slots.into(), spread: 1, model, ..need };
        found.accelerator = search.place(&need)?.pop();
    }
    Some(found)
}

/// The way to every segment of a group.
fn join(
    rack: &Rack,
    search: &mut Search<'_>,
    name: &Name,
    class: LatencyClass,
) -> Option<Vec<(SegmentId, Via)>> {
    let mut ways: Vec<(Node, Via)> = Vec::new();
    let mut joined = Vec::new();
    for id in rack.groups.get(name)? {
        let segment = rack.segment(*id)?;
        let node = rack.graph.brick_node(&segment.brick).ok()?;
        if !rack.graph.brick_at(node)?.is_reachable() || rack.is_lost(segment) {
            return None;
        }
        let known = ways.iter().find(|(other, _)| *other == node).map(|(_, via)| via.clone());
        let via = match known {
            Some(via) => via,
            None => {
                let via = class.far_up_to().find_map(|class| search.via(node, class))?;
                search.take(&via);
                ways.push((node, via.clone()));
                via
            }
        };
        joined.push((*id, via));
    }
    Some(joined)
}

/// Numbers what was found and gives it pages.
pub(super) struct Builder<'a> {
    rack: &'a Rack,
    id: ReservationId,
    group: Option<&'a Name>,
    segments_made: u32,
    circuits_made: u32,
}

impl<'a> Builder<'a> {
    pub(super) fn of(rack: &'a Rack, reservation: &Reservation) -> Self {
        let (segments_made, circuits_made) = (reservation.segments_made, reservation.circuits_made);
        Self { rack, id: reservation.id, group: None, segments_made, circuits_made }
    }

    pub(super) fn grant(mut self, found: &Found) -> Result<Grant, RackError> {
        let compute = self.name(found.from)?;
        let mut grant = Grant::empty(compute);
        let mut ways: Vec<(Node, CircuitId)> = Vec::new();
        self.wake(&mut grant, found.from);
        for piece in &found.memory {
            let circuit = self.circuit(&mut grant, &mut ways, found.from, (piece.node, &piece.via))?;
            self.wake(&mut grant, piece.node);
            self.memory(&mut grant, piece, circuit)?;
        }
        for (segment, via) in &found.joined {
            let there = self.rack.segment(*segment).ok_or_else(|| super::vanished("a shared segment"))?;
            let node = self.rack.graph.brick_node(&there.brick)?;
            let circuit = self.circuit(&mut grant, &mut ways, found.from, (node, via))?;
            let (segment, pages) = (*segment, there.pages);
            grant.mappings.push(Mapping { segment, start: 0, pages, circuit, lost: false });
        }
        if let Some(piece) = &found.accelerator {
            let circuit = self.circuit(&mut grant, &mut ways, found.from, (piece.node, &piece.via))?;
            self.wake(&mut grant, piece.node);
            let (brick, slots) = (self.name(piece.node)?, piece.amount as u32);
            grant.accelerator = Some(AcceleratorGrant { brick, slots, circuit });
        }
        self.far_addresses(&mut grant, found.from)?;
        Ok(grant)
    }

    fn name(&self, node: Node) -> Result<Name, RackError> {
        self.rack
            .graph
            .brick_at(node)
            .map(|brick| brick.name().clone())
            .ok_or_else(|| super::vanished("a brick"))
    }

    fn wake(&self, grant: &mut Grant, node: Node) {
        if let Some(brick) = self.rack.graph.brick_at(node)
            && brick.power() == Power::Off
        {
            grant.wake.push(brick.name().clone());
        }
    }

    /// The circuit to a brick: one that is there, one that this grant already sets, or a new one.
    fn circuit(
        &mut self,
        grant: &mut Grant,
        ways: &mut Vec<(Node, CircuitId)>,
        from: Node,
        (to, via): (Node, &Via),
    ) -> Result<CircuitId, RackError> {
        if let Some((_, circuit)) = ways.iter().find(|(node, _)| *node == to) {
            return Ok(*circuit);
        }
        let circuit = match via {
            Via::There(circuit) => {
                grant.reused.push(*circuit);
                *circuit
            }
            Via::New(route) => {
                let circuit = CircuitId::new(self.id, self.next(self.circuits_made)?);
                self.circuits_made += 1;
                grant.circuits.push((circuit, self.rack.graph.path(from, route)));
                circuit
            }
        };
        ways.push((to, circuit));
        Ok(circuit)
    }

    fn memory(&mut self, grant: &mut Grant, piece: &Piece, circuit: CircuitId) -> Result<(), RackError> {
        let brick = self.rack.graph.brick_at(piece.node).ok_or_else(|| super::vanished("a brick"))?;
        let ranges = brick
            .extents()
            .holes()
            .take_pieces(piece.amount)
            .ok_or_else(|| super::vanished("free memory"))?;
        for range in ranges {
            let id = SegmentId::new(self.id, self.next(self.segments_made)?);
            self.segments_made += 1;
            let pages = range.end - range.start;
            grant.segments.push(Segment {
                id,
                brick: brick.name().clone(),
                start: range.start,
                pages,
                group: self.group.cloned(),
                users: Vec::new(),
            });
            grant.mappings.push(Mapping { segment: id, start: 0, pages, circuit, lost: false });
        }
        Ok(())
    }

    fn next(&self, made: u32) -> Result<u32, RackError> {
        let needs = "has used up its 65536 numbers for segments or circuits; reserve anew";
        if made < PARTS_MAX {
            Ok(made)
        } else {
            Err(RackError::State { id: self.id, is: State::Applied, needs })
        }
    }

    /// Gives each mapping its place in the compute brick's far address space.
    fn far_addresses(&self, grant: &mut Grant, from: Node) -> Result<(), RackError> {
        let brick = self.rack.graph.brick_at(from).ok_or_else(|| super::vanished("a brick"))?;
        if brick.extents().count() + grant.mappings.len() > NETPORTS_MAX {
            return Err(Refusal::named(brick.name(), Shortage::NetPorts(NETPORTS_MAX)).into());
        }
        let mut holes = brick.extents().holes();
        for mapping in &mut grant.mappings {
            mapping.start = holes
                .take(mapping.pages)
                .ok_or_else(|| RackError::from(Refusal::named(brick.name(), Shortage::FarAddresses)))?;
        }
        Ok(())
    }
}
