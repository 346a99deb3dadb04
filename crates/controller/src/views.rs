//! The rack's words as those of the API, and back. Pure.

use rackmem_api::LatencyClass;
use rackmem_api::controller::{
    AcceleratorView, BrickKind, BrickNew, BrickView, CableView, CircuitView, GroupNew, MappingView, PlanView,
    PowerState, ReasonView, ReservationNew, ReservationView, SegmentView, SwitchView, Topology, TrayView,
    Who,
};
use rackmem_rack::planner::Reason;
use rackmem_rack::{
    AcceleratorNeed, Brick, BrickSpec, CableSpec, CircuitState, Event, GroupNeed, Name, Offer, Path, Place,
    Plan, PortRef, Power, Rack, RackError, Request, Reservation, ReservationId, Role, SPREAD_DEFAULT,
    Segment, SwitchKind, Timestamp,
};
use rackmem_types::{Bytes, PAGE_SIZE};

use crate::hands::attachment_of;

pub(crate) const fn class_of(class: rackmem_rack::LatencyClass) -> LatencyClass {
    match class {
        rackmem_rack::LatencyClass::Local => LatencyClass::Local,
        rackmem_rack::LatencyClass::Tray => LatencyClass::Tray,
        rackmem_rack::LatencyClass::Rack => LatencyClass::Rack,
        rackmem_rack::LatencyClass::Interrack => LatencyClass::Interrack,
    }
}

pub(crate) const fn class_asked(class: LatencyClass) -> rackmem_rack::LatencyClass {
    match class {
        LatencyClass::Local => rackmem_rack::LatencyClass::Local,
        LatencyClass::Tray => rackmem_rack::LatencyClass::Tray,
        LatencyClass::Rack => rackmem_rack::LatencyClass::Rack,
        LatencyClass::Interrack => rackmem_rack::LatencyClass::Interrack,
    }
}

/// The events that register a brick and its cables.
pub(crate) fn registration(new: BrickNew) -> Result<Vec<Event>, RackError> {
    let name: Name = new.name.parse()?;
    let offers = match new.offers {
        BrickKind::Compute { cores, local } => Offer::Compute { cores, local },
        BrickKind::Memory { size } => Offer::Memory { size },
        BrickKind::Accelerator { model, slots } => Offer::Accelerator { model, slots },
    };
    let mut events = vec![Event::BrickAdded(BrickSpec {
        name: name.clone(),
        tray: new.tray.parse()?,
        ports: new.ports,
        offers,
        power: Power::On,
        watts: new.watts,
        address: new.address,
    })];
    for cable in new.cables {
        let ends = [PortRef { of: name.clone(), port: cable.port }, cable.to.parse()?];
        events.push(Event::CableAdded(CableSpec { ends, latency_ns: cable.latency_ns, mbps: cable.mbps }));
    }
    Ok(events)
}

/// The request of `project`, asked for at `now_ms`.
pub(crate) fn request(new: &ReservationNew, project: String, now_ms: u64) -> Result<Request, RackError> {
    let group = match &new.group {
        None => None,
        Some(GroupNew::Init(name)) => Some(GroupNeed::Init(name.parse()?)),
        Some(GroupNew::Join(name)) => Some(GroupNeed::Join(name.parse()?)),
    };
    let accelerator = new.accelerator.as_ref();
    Ok(Request {
        project,
        compute: new.compute.as_deref().map(str::parse).transpose()?,
        cores: new.cores,
        local: new.local,
        memory: new.memory,
        class: class_asked(new.class),
        spread: new.spread.unwrap_or(SPREAD_DEFAULT),
        accelerator: accelerator.map(|need| AcceleratorNeed { model: need.model.clone(), slots: need.slots }),
        group,
        expires: new.expires_s.map(|seconds| Timestamp(now_ms + u64::from(seconds) * 1000)),
    })
}

pub(crate) fn brick(brick: &Brick) -> BrickView {
    let spec = brick.spec();
    let unit = if brick.role() == Role::Memory { PAGE_SIZE as u64 } else { 1 };
    BrickView {
        name: spec.name.to_string(),
        tray: spec.tray.to_string(),
        ports: spec.ports,
        offers: match spec.offers.clone() {
            Offer::Compute { cores, local } => BrickKind::Compute { cores, local },
            Offer::Memory { size } => BrickKind::Memory { size },
            Offer::Accelerator { model, slots } => BrickKind::Accelerator { model, slots },
        },
        power: match brick.power() {
            Power::Off => PowerState::Off,
            Power::Waking => PowerState::Waking,
            Power::On => PowerState::On,
        },
        reachable: brick.is_reachable(),
        draining: brick.is_draining(),
        capacity: brick.capacity() * unit,
        used: brick.used() * unit,
        local_free: brick.local_free(),
        watts: spec.watts,
        address: spec.address.clone(),
    }
}

pub(crate) fn reservation(rack: &Rack, of: &Reservation) -> ReservationView {
    let mappings = of.mappings.iter().filter_map(|mapping| {
        Some(MappingView {
            segment: segment(rack.segment(mapping.segment)?),
            attachment: attachment_of(mapping.segment),
            start: mapping.start * PAGE_SIZE as u64,
            lost: mapping.lost,
        })
    });
    ReservationView {
        id: of.id.0,
        project: of.request.project.clone(),
        compute: of.compute.to_string(),
        state: of.state.to_string(),
        class: class_of(of.request.class),
        cores: of.request.cores,
        local: of.request.local,
        memory: Bytes::from_pages(of.pages()),
        mappings: mappings.collect(),
        accelerator: of
            .accelerator
            .as_ref()
            .map(|has| AcceleratorView { brick: has.brick.to_string(), slots: has.slots }),
        group: of.group.as_ref().map(ToString::to_string),
        expires_ms: of.request.expires.map(|expires| expires.0),
    }
}

fn segment(segment: &Segment) -> SegmentView {
    SegmentView {
        id: segment.id.to_string(),
        brick: segment.brick.to_string(),
        size: Bytes::from_pages(segment.pages),
    }
}

pub(crate) fn plan(plan: &Plan) -> PlanView {
    let grant = plan.grant();
    PlanView {
        compute: grant.compute.to_string(),
        wake: grant.wake.iter().map(ToString::to_string).collect(),
        segments: grant.segments.iter().map(segment).collect(),
        circuits: grant.circuits.iter().map(|(_, way)| path(way)).collect(),
        steps: plan.steps().iter().map(ToString::to_string).collect(),
    }
}

/// A plan for a reservation that has no number yet.
pub(crate) fn preview(of: &Plan) -> PlanView {
    let number = format!("{}.", of.reservation());
    let named = |text: String| text.replace(&number, "new.");
    let view = plan(of);
    PlanView {
        segments: view
            .segments
            .into_iter()
            .map(|segment| SegmentView { id: named(segment.id), ..segment })
            .collect(),
        steps: view.steps.into_iter().map(named).collect(),
        ..view
    }
}

fn path(way: &Path) -> Vec<String> {
    way.cables.iter().flatten().map(ToString::to_string).collect()
}

pub(crate) fn reason(reason: Reason) -> ReasonView {
    let kind = match reason.role {
        Role::Compute => "compute",
        Role::Memory => "memory",
        Role::Accelerator => "accelerator",
    };
    ReasonView {
        brick: reason.brick.to_string(),
        kind: kind.to_owned(),
        serves: reason.serves,
        why: reason.why,
    }
}

/// The graph. Of who uses a circuit, only what `who` may see is told.
pub(crate) fn topology(rack: &Rack, who: &Who) -> Topology {
    let is_seen = |id: &&ReservationId| {
        rack.reservation(**id).is_ok_and(|reservation| who.sees(&reservation.request.project))
    };
    let mut circuits: Vec<_> = rack.circuits().collect();
    circuits.sort_unstable_by_key(|circuit| circuit.id);
    Topology {
        racks: rack.racks().map(ToString::to_string).collect(),
        trays: rack
            .trays()
            .map(|(name, rack)| TrayView { name: name.to_string(), rack: rack.to_string() })
            .collect(),
        bricks: rack.bricks().map(brick).collect(),
        switches: rack
            .switches()
            .map(|switch| SwitchView {
                name: switch.spec().name.to_string(),
                place: match &switch.spec().place {
                    Place::Tray(name) | Place::Rack(name) => Some(name.to_string()),
                    Place::Between => None,
                },
                kind: match switch.spec().kind {
                    SwitchKind::Circuit => "circuit".to_owned(),
                    SwitchKind::Packet => "packet".to_owned(),
                },
                ports: switch.spec().ports,
            })
            .collect(),
        cables: rack
            .cables()
            .map(|cable| CableView {
                ends: cable.spec().ends.iter().map(ToString::to_string).collect(),
                latency_ns: cable.spec().latency_ns,
                mbps: cable.spec().mbps,
                circuits: cable.circuits(),
            })
            .collect(),
        circuits: circuits
            .into_iter()
            .map(|circuit| CircuitView {
                id: circuit.id.to_string(),
                path: path(&circuit.path),
                class: class_of(circuit.path.class),
                state: match circuit.state {
                    CircuitState::Planned => "planned",
                    CircuitState::Up => "up",
                    CircuitState::Closing { .. } => "closing",
                    CircuitState::Down => "down",
                }
                .to_owned(),
                users: circuit.users.iter().filter(is_seen).map(|user| user.0).collect(),
            })
            .collect(),
    }
}
