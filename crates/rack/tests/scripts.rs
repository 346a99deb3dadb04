//! Command scripts over a rack, and what comes of them, reviewed as behaviour. Each `tests/scripts/*.txt` is a script; its output is
//! the snapshot beside it (`cargo insta review`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::collections::BTreeMap;
use std::fmt::Write;

use rackmem_rack::{
    AcceleratorNeed, Event, GroupNeed, LatencyClass, Observation, Plan, Quota, Quotas, Rack, RackError,
    Request, ReservationId, SegmentId, Timestamp, file, planner,
};
use rackmem_types::Bytes;
use support::{cable, name, port};

#[derive(Default)]
struct Script {
    rack: Rack,
    quotas: Quotas,
    plans: BTreeMap<u64, Plan>,
    out: String,
}

type Words<'a> = &'a [&'a str];

impl Script {
    fn run(source: &str) -> String {
        let mut script = Self::default();
        for line in source.lines().filter(|line| !line.is_empty()) {
            writeln!(script.out, "> {line}").unwrap();
            let words: Vec<_> = line.split_whitespace().collect();
            if words[0].starts_with('#') {
                continue;
            }
            if let Err(error) = script.command(&words) {
                writeln!(script.out, "refused: {error}").unwrap();
            }
            assert_eq!(script.rack.audit(), Vec::<String>::new(), "after '{line}'");
        }
        script.out
    }

    fn command(&mut self, words: Words<'_>) -> Result<(), RackError> {
        let id = || ReservationId(words[1].parse().unwrap());
        match words[0] {
            "load" => {
                let source = std::fs::read_to_string(format!("../../examples/{}", words[1])).unwrap();
                file::read(&source).unwrap().iter().try_for_each(|event| self.rack.apply(event).map(drop))
            }
            "add" => {
                let source = words[1..].join(" ");
                for event in file::read(&source).map_err(|mistake| RackError::Request(mistake.problem))? {
                    self.rack.apply(&event)?;
                }
                Ok(())
            }
            "cable" => self.event(&cable(words[1], words[2], 100)),
            "unplug" => self.event(&Event::CableRemoved(port(words[1]))),
            "remove" => self.event(&Event::Removed(name(words[1]))),
            "quota" => {
                let limits = [(words[1].parse()?, bytes(words[2]))];
                self.quotas.default = Quota(limits.into_iter().collect());
                Ok(())
            }
            "preview" => self.plan(words).map(drop),
            "reserve" => {
                let plan = self.plan(words)?;
                self.accept(plan)
            }
            "accept" => {
                let plan = self.plans[&id().0].clone();
                self.accept(plan)
            }
            "start" => self.event(&Event::Started(id())),
            "done" => self.event(&Event::Done(id())),
            "apply" => {
                self.event(&Event::Started(id()))?;
                self.event(&Event::Done(id()))
            }
            "undo" => {
                let plan = &self.plans[&id().0];
                let steps = planner::undo(&self.rack, plan, words[2].parse().unwrap())?;
                steps.iter().for_each(|step| writeln!(self.out, "  {step}").unwrap());
                self.event(&Event::Undoing(id()))?;
                self.event(&Event::Undone(id()))
            }
            "expire" => {
                let due: Vec<_> = self.rack.due(Timestamp(words[1].parse().unwrap())).collect();
                due.into_iter().try_for_each(|id| self.event(&Event::Expired(id)))
            }
            "release" | "grow" | "shrink" => {
                let plan = match words[0] {
                    "release" => planner::release(&self.rack, id())?,
                    "grow" => planner::grow(&self.rack, id(), bytes(words[2]))?,
                    _ => planner::shrink(&self.rack, id(), bytes(words[2]))?,
                };
                self.show_plan(&plan);
                self.accept(plan)?;
                self.event(&Event::Done(id()))
            }
            "replace" => match planner::replace_lost(&self.rack, id())? {
                Some(plan) => {
                    self.show_plan(&plan);
                    self.accept(plan)?;
                    self.event(&Event::Done(id()))
                }
                None => {
                    writeln!(self.out, "  nothing is lost").unwrap();
                    Ok(())
                }
            },
            "drain" => {
                let brick = name(words[1]);
                self.event(&Event::Draining { brick: brick.clone(), draining: true })?;
                while let Some(plan) = planner::drain_next(&self.rack, &brick)? {
                    self.show_plan(&plan);
                    let id = plan.reservation();
                    self.accept(plan)?;
                    self.event(&Event::Done(id))?;
                }
                Ok(())
            }
            "silent" => self.event(&Event::Reachable { brick: name(words[1]), reachable: false }),
            "power" => self.event(&Event::PowerSeen { brick: name(words[1]), on: words[2] == "on" }),
            "why" => {
                let request = request(&words[1..]);
                for reason in planner::why(&self.rack, &request)? {
                    let mark = if reason.serves { '+' } else { '-' };
                    writeln!(self.out, "  {mark} {}: {}", reason.brick, reason.why).unwrap();
                }
                Ok(())
            }
            "memory-reports" => {
                let segments = words[3..].iter().map(|word| segment(word)).collect();
                self.observe(&Observation::Memory {
                    brick: name(words[1]),
                    size: bytes(words[2]),
                    segments,
                    others: 0,
                })
            }
            "switch-reports" => {
                let pairs = words[2..].iter().map(|word| {
                    let (a, b) = word.split_once('-').unwrap();
                    [a.parse().unwrap(), b.parse().unwrap()]
                });
                self.observe(&Observation::Switch { switch: name(words[1]), pairs: pairs.collect() })
            }
            "show" => {
                self.show();
                Ok(())
            }
            other => panic!("there is no command '{other}'"),
        }
    }

    fn event(&mut self, event: &Event) -> Result<(), RackError> {
        if let Some(ended) = self.rack.apply(event)?.ended {
            writeln!(self.out, "  reservation {} is {}", ended.id, ended.state).unwrap();
        }
        Ok(())
    }

    fn observe(&mut self, observation: &Observation) -> Result<(), RackError> {
        for difference in self.rack.differences(observation)? {
            writeln!(self.out, "  {difference}").unwrap();
            difference.event().map_or(Ok(()), |event| self.event(&event))?;
        }
        Ok(())
    }

    fn plan(&mut self, words: Words<'_>) -> Result<Plan, RackError> {
        let id: u64 = words[1].parse().unwrap();
        let request = request(&words[2..]);
        self.quotas.check(&self.rack, &request)?;
        let plan = planner::reserve(&self.rack, ReservationId(id), &request)?;
        self.show_plan(&plan);
        self.plans.insert(id, plan.clone());
        Ok(plan)
    }

    fn accept(&mut self, plan: Plan) -> Result<(), RackError> {
        self.event(&Event::Accepted(Box::new(plan)))
    }

    fn show_plan(&mut self, plan: &Plan) {
        for step in plan.steps() {
            writeln!(self.out, "  {step}").unwrap();
        }
    }

    fn show(&mut self) {
        for brick in self.rack.bricks().filter(|brick| brick.used() > 0) {
            let used: Vec<_> = brick.extents().iter().map(|(range, id)| format!("{range:?}={id}")).collect();
            writeln!(self.out, "  {} {}/{} {}", brick.name(), brick.used(), brick.capacity(), used.join(" "))
                .unwrap();
        }
        let mut circuits: Vec<_> = self.rack.circuits().collect();
        circuits.sort_unstable_by_key(|circuit| circuit.id);
        for circuit in circuits {
            let (near, far) = (circuit.path.near(), circuit.path.far());
            let users: Vec<_> = circuit.users.iter().map(ReservationId::to_string).collect();
            let (class, ns) = (circuit.path.class, circuit.path.latency_ns);
            let (id, state, users) = (circuit.id, circuit.state, users.join(", "));
            writeln!(self.out, "  circuit {id} {near} – {far} {class} {ns} ns {state:?} for {users}")
                .unwrap();
        }
        for reservation in self.rack.reservations() {
            let lost = reservation.mappings.iter().filter(|mapping| mapping.lost).count();
            let pages = Bytes::from_pages(reservation.pages());
            let (id, compute, state) = (reservation.id, &reservation.compute, reservation.state);
            writeln!(self.out, "  reservation {id} {compute} {pages} {state}, {lost} segments lost").unwrap();
        }
    }
}

fn bytes(text: &str) -> Bytes {
    text.parse().unwrap()
}

/// `17.0` or `17.0=4096`, with the pages.
fn segment(word: &str) -> (SegmentId, u64) {
    let (id, pages) = word.split_once('=').unwrap_or((word, "0"));
    let (reservation, part) = id.split_once('.').unwrap();
    let id = SegmentId::new(ReservationId(reservation.parse().unwrap()), part.parse().unwrap());
    (id, pages.parse().unwrap())
}

/// `COMPUTE|any SIZE CLASS [cores=N] [local=SIZE] [spread=N] [until=TIME] [init=GROUP] [join=GROUP] [accelerator=MODEL] [project=NAME]`.
fn request(words: Words<'_>) -> Request {
    let compute = (words[0] != "any").then(|| name(words[0]));
    let class: LatencyClass = words[2].parse().unwrap();
    let mut request = Request::memory("p", compute, bytes(words[1]), class);
    for word in &words[3..] {
        match word.split_once('=').unwrap() {
            ("cores", cores) => request.cores = cores.parse().unwrap(),
            ("local", local) => request.local = bytes(local),
            ("spread", spread) => request.spread = spread.parse().unwrap(),
            ("until", time) => request.expires = Some(Timestamp(time.parse().unwrap())),
            ("init", group) => request.group = Some(GroupNeed::Init(name(group))),
            ("join", group) => request.group = Some(GroupNeed::Join(name(group))),
            ("accelerator", model) => {
                request.accelerator = Some(AcceleratorNeed { model: Some(model.to_owned()), slots: 1 });
            }
            ("project", project) => request.project = project.to_owned(),
            (other, _) => panic!("a request has no '{other}'"),
        }
    }
    request
}

fn check(script: &str) {
    let source = std::fs::read_to_string(format!("tests/scripts/{script}.txt")).unwrap();
    insta::with_settings!({ snapshot_path => "scripts", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(script, Script::run(&source));
    });
}

#[test]
fn a_reservation_from_preview_to_release() {
    check("lifecycle");
}

#[test]
fn a_plan_is_overtaken_and_what_changed_is_named() {
    check("overtaken");
}

#[test]
fn what_was_lost_is_replaced() {
    check("lost");
}

#[test]
fn a_brick_is_drained_and_removed() {
    check("drain");
}

#[test]
fn a_drain_that_finds_no_place_says_what_is_free_elsewhere() {
    check("full");
}

#[test]
fn reality_wins() {
    check("reality");
}

#[test]
fn a_plan_is_undone_beside_others() {
    check("undo");
}

#[test]
fn a_group_shares_memory() {
    check("group");
}

#[test]
fn what_is_refused_says_why() {
    check("refusals");
}
