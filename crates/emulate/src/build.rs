//! The commands that make a rack's devices. Pure, but for [`make`], which runs them.
//!
//! A brick's cabled ports are joined in its bridge `data`, so that its one address is good on each of them. They are isolated from
//! each other: a brick never passes on what is for another. Who has which address is known beforehand and not asked for, so the
//! first page flows as soon as there is a circuit. What a bridge has learnt of a circuit is forgotten within a second, for
//! the case that the brick at the other end is reached by another port then.

use rackmem_rack::{Name, PortRef};
use rackmem_switch::iproute;

use crate::layout::{BrickPlace, Layout};
use crate::{EmulateError, namespace};

/// How long a bridge remembers behind which port somebody is, in hundredths of a second.
const AGEING_CENTISECONDS: u32 = 100;

/// The controller's address on the management net.
const CONTROLLER: &str = "10.78.255.1/16";

/// Makes all namespaces and devices of `layout`; none of its namespaces may exist.
pub(crate) fn make(layout: &Layout) -> Result<(), EmulateError> {
    let names = layout.namespaces().map(|name| format!("netns add {name}")).collect::<Vec<_>>();
    iproute::batch("ip", None, &names)?;
    for name in layout.namespaces() {
        namespace::make_plain(name)?;
    }
    iproute::batch("ip", None, &links(layout))?;
    iproute::batch("ip", Some(layout.management()), &management(layout))?;
    for brick in &layout.bricks {
        iproute::batch("ip", Some(&brick.namespace), &inside_brick(layout, brick))?;
    }
    for switch in &layout.switches {
        let ends = layout.cables().flat_map(|cable| &cable.ends).filter(|end| end.of == switch.name);
        let up: Vec<String> = ends.map(|end| format!("link set dev p{} up", end.port)).collect();
        iproute::batch("ip", Some(&switch.namespace), &up)?;
    }
    Ok(())
}

/// Cables, and every brick's way to the management net.
fn links(layout: &Layout) -> Vec<String> {
    let namespace = |of: &Name| format!("{}:{of}", layout.name);
    let end = |end: &PortRef| format!("name p{} netns {}", end.port, namespace(&end.of));
    let cables = layout
        .cables()
        .map(|cable| format!("link add {} type veth peer {}", end(&cable.ends[0]), end(&cable.ends[1])));
    let management = layout.bricks.iter().map(|brick| {
        format!(
            "link add name mgmt netns {} type veth peer name b{} netns {}",
            brick.namespace,
            brick.number,
            layout.management()
        )
    });
    cables.chain(management).collect()
}

fn management(layout: &Layout) -> Vec<String> {
    let mut lines = vec!["link set dev lo up".to_owned(), "link add name mgmt type bridge".to_owned()];
    lines.extend(layout.bricks.iter().flat_map(|brick| isolated(&format!("b{}", brick.number), "mgmt")));
    lines.extend(["link set dev mgmt up".to_owned(), format!("address add {CONTROLLER} dev mgmt")]);
    lines
}

fn inside_brick(layout: &Layout, brick: &BrickPlace) -> Vec<String> {
    let mut lines = vec![
        "link set dev lo up".to_owned(),
        format!("link add name data address {} type bridge ageing_time {AGEING_CENTISECONDS}", mac(brick)),
    ];
    lines.extend(brick.cabled.iter().flat_map(|port| isolated(&format!("p{port}"), "data")));
    lines.extend([
        "link set dev data up".to_owned(),
        "link set dev mgmt up".to_owned(),
        format!("address add {}/16 dev data", brick.data),
        format!("address add {}/16 dev mgmt", brick.management),
    ]);
    let others = layout.bricks.iter().filter(|other| other.number != brick.number);
    lines.extend(
        others.map(|other| {
            format!("neighbour add {} lladdr {} dev data nud permanent", other.data, mac(other))
        }),
    );
    lines
}

/// `device` as a port of `bridge` from which nothing goes to another port.
fn isolated(device: &str, bridge: &str) -> [String; 3] {
    [
        format!("link set dev {device} master {bridge}"),
        format!("link set dev {device} type bridge_slave isolated on"),
        format!("link set dev {device} up"),
    ]
}

/// A locally administered address that nobody else in the rack has.
fn mac(brick: &BrickPlace) -> String {
    format!("02:77:00:00:00:{:02x}", brick.number)
}
