//! A topology as a drawing: trays as boxes with their bricks at the sides and their switches in the middle, racks' switches below,
//! cables as lines, those with circuits in colour. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use rackmem_api::controller::{BrickKind, Topology};

/// Width of a brick or switch.
const NODE_W: i32 = 120;
const NODE_H: i32 = 34;
/// Between two of them.
const GAP: i32 = 18;
/// Between the three columns of a tray, where the cables are.
const ALLEY: i32 = 110;
const TRAY_W: i32 = 3 * NODE_W + 2 * ALLEY + 2 * GAP;
/// The line with a tray's name.
const HEAD: i32 = 28;

/// The drawing, an SVG document.
pub(super) fn svg(topology: &Topology) -> String {
    let (places, boxes, (width, height)) = arrange(topology);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    for (name, x, y, h) in boxes {
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{TRAY_W}\" height=\"{h}\" rx=\"8\" fill=\"#f4f4f2\" stroke=\"#b8b8b0\"/>\
             <text x=\"{}\" y=\"{}\" fill=\"#555555\">{name}</text>",
            x + GAP,
            y + 18
        );
    }
    for cable in &topology.cables {
        let ends: Vec<_> = cable.ends.iter().filter_map(|end| places.get(end.split(':').next()?)).collect();
        if let [(x1, y1), (x2, y2)] = ends[..] {
            let (colour, wide) = if cable.circuits > 0 { ("#c2410c", 3) } else { ("#9a9a94", 1) };
            let _ = writeln!(
                out,
                "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" stroke=\"{colour}\" stroke-width=\"{wide}\">\
                 <title>{}: {} ns, {} circuits</title></line>",
                cable.ends.join(" - "),
                cable.latency_ns,
                cable.circuits
            );
        }
    }
    let nodes = topology.bricks.iter().map(|brick| {
        let colour = match brick.offers {
            BrickKind::Compute { .. } => "#dbeafe",
            BrickKind::Memory { .. } => "#dcfce7",
            BrickKind::Accelerator { .. } => "#fae8ff",
        };
        let share = brick.used.saturating_mul(100).checked_div(brick.capacity).unwrap_or(0);
        (&brick.name, format!("{}: {share} % taken", brick.name), colour)
    });
    let switches = topology.switches.iter();
    let switches = switches.map(|one| (&one.name, format!("{} ({})", one.name, one.kind), "#e7e5e4"));
    for (name, text, colour) in nodes.chain(switches) {
        let Some((x, y)) = places.get(name.as_str()) else { continue };
        let _ = writeln!(
            out,
            "<rect x=\"{}\" y=\"{}\" width=\"{NODE_W}\" height=\"{NODE_H}\" rx=\"4\" fill=\"{colour}\" stroke=\"#555555\"/>\
             <text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
            x - NODE_W / 2,
            y - NODE_H / 2,
            y + 4
        );
    }
    out + "</svg>\n"
}

/// The middle of each brick and switch, and the tray's boxes.
type Arranged<'a> = (BTreeMap<&'a str, (i32, i32)>, Vec<(&'a str, i32, i32, i32)>, (i32, i32));

fn arrange(topology: &Topology) -> Arranged<'_> {
    let mut places = BTreeMap::new();
    let mut boxes = Vec::new();
    let (mut width, mut y) = (TRAY_W + 2 * GAP, GAP);
    for rack in &topology.racks {
        let mut deepest = 0;
        let trays: Vec<_> = topology.trays.iter().filter(|tray| tray.rack == *rack).collect();
        for (at, tray) in (0..).zip(&trays) {
            let x = GAP + at * (TRAY_W + GAP);
            let mut columns: [Vec<&str>; 3] = Default::default();
            for brick in topology.bricks.iter().filter(|brick| brick.tray == tray.name) {
                let side = if matches!(brick.offers, BrickKind::Compute { .. }) { 0 } else { 2 };
                columns[side].push(&brick.name);
            }
            let here = topology.switches.iter().filter(|one| one.place.as_ref() == Some(&tray.name));
            columns[1].extend(here.map(|switch| switch.name.as_str()));
            let rows = columns.iter().map(Vec::len).max().unwrap_or(0);
            let h = HEAD + GAP + i32::try_from(rows).unwrap_or(0) * (NODE_H + GAP);
            for (column, names) in (0..).zip(&columns) {
                let middle = x + GAP + NODE_W / 2 + column * (NODE_W + ALLEY);
                for (row, name) in (0..).zip(names) {
                    places.insert(*name, (middle, y + HEAD + GAP + row * (NODE_H + GAP) + NODE_H / 2));
                }
            }
            boxes.push((tray.name.as_str(), x, y, h));
            deepest = deepest.max(h);
            width = width.max(x + TRAY_W + GAP);
        }
        y += deepest + 2 * GAP;
        y = row(topology, Some(rack), &mut places, y);
    }
    y = row(topology, None, &mut places, y);
    (places, boxes, (width, y))
}

/// A line of switches that stand in no tray; gives where the next line begins.
fn row<'a>(
    topology: &'a Topology,
    place: Option<&str>,
    places: &mut BTreeMap<&'a str, (i32, i32)>,
    y: i32,
) -> i32 {
    let here = topology.switches.iter().filter(|switch| switch.place.as_deref() == place);
    let mut next = y;
    for (at, switch) in (0..).zip(here) {
        let x = TRAY_W + GAP + GAP / 2 + at * (NODE_W + GAP);
        places.insert(switch.name.as_str(), (x, y + NODE_H / 2));
        next = y + NODE_H + 2 * GAP;
    }
    next
}
