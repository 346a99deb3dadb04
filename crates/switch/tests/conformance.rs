//! What every driver has to do, on each driver. `root_…` makes network namespaces of its own and removes them.

#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use std::collections::BTreeSet;

use rackmem_switch::{Change, Pair, SimSwitch, SwitchDriver, SwitchError, TcSwitch, iproute, open};

const PORTS: u16 = 6;

fn pairs(text: &str) -> Vec<Pair> {
    text.split_whitespace().map(|pair| pair.parse().unwrap()).collect()
}

fn set(text: &str) -> BTreeSet<Pair> {
    pairs(text).into_iter().collect()
}

fn change(disconnect: &str, connect: &str) -> Change {
    Change { disconnect: pairs(disconnect), connect: pairs(connect) }
}

/// All that a driver promises, on a switch with ports 0 to 5 and no circuit.
fn conforms(switch: &dyn SwitchDriver) {
    assert_eq!(switch.ports().unwrap(), (0..PORTS).collect::<Vec<_>>());
    assert_eq!((switch.observed().unwrap().generation, switch.observed().unwrap().pairs.len()), (0, 0));
    // Set, set again, ended, ended again.
    for _ in 0..2 {
        assert_eq!(switch.connect(&pairs("0-1 3-2"), 5).unwrap().pairs, set("0-1 2-3"));
        assert_eq!(switch.observed().unwrap().pairs, set("0-1 2-3"));
    }
    for _ in 0..2 {
        assert_eq!(switch.disconnect(&pairs("1-0"), 5).unwrap().pairs, set("2-3"));
    }
    // An older generation is refused and changes nothing; the same one is good.
    let refused = switch.connect(&pairs("0-1"), 4).unwrap_err();
    assert!(matches!(refused, SwitchError::Overtaken { generation: 4, present: 5 }), "{refused}");
    assert!(refused.to_string().contains("plan again"), "{refused}");
    switch.connect(&pairs("0-1"), 5).unwrap();
    // All or nothing: 4-5 could be set, but 0 is taken.
    let refused = switch.connect(&pairs("4-5 0-2"), 9).unwrap_err();
    assert!(matches!(refused, SwitchError::Taken { port: 0, .. }), "{refused}");
    let observed = switch.observed().unwrap();
    assert_eq!((observed.pairs, observed.generation), (set("0-1 2-3"), 5), "a refused change has no effect");
    let refused = switch.connect(&pairs("4-5 4-77"), 5).unwrap_err();
    assert!(matches!(refused, SwitchError::UnknownPort { port: 77, .. }), "{refused}");
    let refused = switch.connect(&pairs("4-5 4-5 5-4"), 5);
    assert!(refused.is_ok(), "one pair named thrice is one circuit: {refused:?}");
    switch.disconnect(&pairs("4-5"), 5).unwrap();
    let refused = switch.change(&change("0-1", "0-4 4-1"), 5).unwrap_err();
    assert!(matches!(refused, SwitchError::Twice(4)), "{refused}");
    // A set of circuits is replaced by another in one change, each port changing its partner.
    let replaced = switch.change(&change("0-1 2-3", "0-3 2-1 4-5"), 6).unwrap();
    assert_eq!((replaced.pairs, replaced.generation), (set("0-3 1-2 4-5"), 6));
    assert_eq!(switch.observed().unwrap().pairs, set("0-3 1-2 4-5"));
    switch.change(&change("0-3 1-2 4-5", ""), 6).unwrap();
    assert_eq!(switch.observed().unwrap().pairs, set(""));
}

/// A namespace with ports that lead nowhere; it goes with the value.
struct Namespace(String);

impl Namespace {
    fn new(of: &str) -> Self {
        let name = format!("rackmem-test-{of}-{}", std::process::id());
        iproute::batch("ip", None, &[format!("netns add {name}")]).expect("needs root");
        let made = Self(name);
        let links = (0..PORTS).map(|port| format!("link add name p{port} type veth peer name q{port}"));
        iproute::batch("ip", Some(&made.0), &links.collect::<Vec<_>>()).unwrap();
        made
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = iproute::batch("ip", None, &[format!("netns del {}", self.0)]);
    }
}

#[test]
fn sim_conforms() {
    conforms(&SimSwitch::new(PORTS));
}

#[test]
fn root_tc_conforms() {
    let namespace = Namespace::new("conforms");
    conforms(&TcSwitch::open(&namespace.0).unwrap());
}

#[test]
fn root_tc_remembers_the_generation_when_its_controller_is_another() {
    let namespace = Namespace::new("remembers");
    TcSwitch::open(&namespace.0).unwrap().connect(&pairs("0-1"), 7).unwrap();
    let other = open(&format!("tc:{}", namespace.0)).unwrap();
    assert!(matches!(other.connect(&pairs("2-3"), 6), Err(SwitchError::Overtaken { present: 7, .. })));
    assert_eq!(other.observed().unwrap().pairs, set("0-1"));
}

#[test]
fn root_tc_restores_what_was_there_when_the_kernel_refuses_a_part() {
    let namespace = Namespace::new("restores");
    let switch = TcSwitch::open(&namespace.0).unwrap();
    switch.connect(&pairs("0-1"), 1).unwrap();
    // Somebody else's filter stands where the one of port 5 would go, and is of another kind.
    let lines = [
        "qdisc add dev p5 clsact",
        "filter add dev p5 ingress protocol ip pref 1 u32 match u32 0 0 action mirred egress redirect dev q5",
    ];
    iproute::batch("tc", Some(&namespace.0), &lines.map(str::to_owned)).unwrap();
    let refused = switch.change(&change("0-1", "0-2 4-5"), 2).unwrap_err();
    assert!(matches!(&refused, SwitchError::Program { words, .. } if !words.is_empty()), "{refused}");
    assert_eq!(switch.observed().unwrap().pairs, set("0-1"), "after: {refused}");
}

#[test]
fn root_tc_ends_what_a_crash_left_half_set() {
    let namespace = Namespace::new("half");
    let switch = TcSwitch::open(&namespace.0).unwrap();
    let lines = [
        "qdisc add dev p4 clsact",
        "filter add dev p4 ingress protocol all pref 1 u32 match u32 0 0 action mirred egress redirect dev p5",
    ];
    iproute::batch("tc", Some(&namespace.0), &lines.map(str::to_owned)).unwrap();
    assert_eq!(switch.observed().unwrap().pairs, set(""));
    switch.connect(&pairs("4-3"), 1).unwrap();
    assert_eq!(switch.observed().unwrap().pairs, set("3-4"));
}

#[test]
fn root_changes_at_once_are_made_one_after_the_other() {
    let namespace = Namespace::new("at-once");
    let name = namespace.0.as_str();
    std::thread::scope(|scope| {
        for pair in ["0-1", "2-3", "4-5"] {
            scope.spawn(move || {
                let switch = TcSwitch::open(name).unwrap();
                for _ in 0..5 {
                    switch.connect(&pairs(pair), 1).unwrap();
                    switch.disconnect(&pairs(pair), 1).unwrap();
                }
                switch.connect(&pairs(pair), 1).unwrap();
            });
        }
    });
    assert_eq!(TcSwitch::open(name).unwrap().observed().unwrap().pairs, set("0-1 2-3 4-5"));
}

#[test]
fn what_is_no_switch_is_refused() {
    for address in ["", "tc", "tc:", "sim:x", "ovs:br0"] {
        assert!(matches!(open(address), Err(SwitchError::Address(_))), "{address}");
    }
    for namespace in ["", "../etc", "rackmem-no-such"] {
        assert!(matches!(TcSwitch::open(namespace), Err(SwitchError::NoSwitch { .. })), "{namespace}");
    }
}
