//! The rack file: what is read, and how mistakes are shown.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use rackmem_rack::{Rack, file};

const START: &str = "[[rack]]\nname = \"r1\"\n[[tray]]\nname = \"t1\"\nrack = \"r1\"\n";

fn mistake(rest: &str) -> String {
    file::read(&format!("{START}{rest}")).unwrap_err().to_string()
}

#[test]
fn the_example_is_a_rack_of_four_by_four() {
    let source = std::fs::read_to_string("../../examples/rack-4x4.toml").unwrap();
    let mut rack = Rack::default();
    for event in file::read(&source).unwrap() {
        rack.apply(&event).unwrap();
    }
    assert_eq!((rack.bricks().count(), rack.switches().count(), rack.cables().count()), (8, 3, 24));
    assert_eq!(rack.audit(), Vec::<String>::new());
}

const COMPUTE: &str = "[[compute]]\nname = \"c1\"\ntray = \"t1\"\ncores = 2\nlocal = \"1GiB\"\nports = 2\n";
const MEMORY: &str = "[[memory]]\nname = \"m1\"\ntray = \"t1\"\nsize = \"1GiB\"\nports = 2\n";
const ACCELERATOR: &str =
    "[[accelerator]]\nname = \"a1\"\ntray = \"t1\"\nmodel = \"fpga\"\nslots = 1\nports = 2\n";

#[test]
fn mistakes_are_shown_where_they_are() {
    let compute = "[[compute]]\nname = \"c1\"\ntray = \"t1\"\ncores = 2\nlocal = \"1GiB\"\nports = 1\n";
    let switch = "[[switch]]\nname = \"s1\"\nrack = \"r1\"\nkind = \"circuit\"\nports = 2\n";
    let cases = [
        "[[tray]]\nname = \"t2\"\nrack = \"r2\"\n".to_owned(),
        "[[tray]]\nname = \"t1\"\nrack = \"r1\"\n".to_owned(),
        compute.replace("t1", "t9"),
        compute.replace("1GiB", "1 lot"),
        compute.replace("cores", "kernels"),
        compute.replace("\"c1\"", "\"c 1\""),
        switch.replace("circuit", "magic"),
        switch.replace("rack = \"r1\"", "rack = \"r1\"\ntray = \"t1\""),
        format!(
            "{compute}{switch}[[cable]]\nends = [\"c1:0\", \"s1:0\"]\n[[cable]]\nends = [\"c1:0\", \"s1:1\"]\n"
        ),
        format!("{compute}{switch}[[cable]]\nends = [\"c1:1\", \"s1:0\"]\n"),
        format!("{compute}{switch}[[cable]]\nends = [\"s1:0\", \"s1:1\"]\n"),
        format!("{compute}{switch}[[cable]]\nends = [\"c1:0\", \"s2:0\"]\n"),
        format!("{compute}{switch}[[cable]]\nends = [\"c1:0\", \"s1:0\"]\nlatency = \"fast\"\n"),
        "[[cable]\n".to_owned(),
    ];
    let shown: Vec<_> = cases.iter().map(|case| mistake(case)).collect();
    insta::with_settings!({ snapshot_path => "scripts", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("mistakes", shown.join("\n\n"));
    });
}

#[test]
fn a_file_without_anything_in_it_is_a_mistake() {
    for nothing in ["", "\n", "# later\n", "rack = []\n"] {
        let shown = file::read(nothing).unwrap_err().to_string();
        assert!(shown.starts_with("line 1, column 1: the file registers nothing"), "{shown}");
    }
}

#[test]
fn what_was_meant_is_told_to_the_clumsy() {
    let cable = |ends: &str| format!("{COMPUTE}{MEMORY}[[cable]]\nends = {ends}\n");
    let cases = [
        cable("[\"c1:0\", \"m1:0\", \"m1:1\"]"),
        cable("[\"c1:0\"]"),
        cable("\"c1:0\""),
        cable("[\"c1:+1\", \"m1:0\"]"),
        cable("[\"c1:70000\", \"m1:0\"]"),
        cable("[\"c1:0\", \"c1:0\"]"),
        cable("[\"c1:0\", \"t1:0\"]"),
        cable("[\"c1:0\", \"m1:0\"]\nlatency = 5"),
        cable("[\"c1:0\", \"m1:0\"]\nlatency = \"5000ms\""),
        cable("[\"c1:0\", \"m1:0\"]\nbandwidth = \"5000Tbit\""),
        COMPUTE.replace("cores = 2", "cores = 0"),
        COMPUTE.replace("cores = 2", "cores = \"2\""),
        COMPUTE.replace("cores = 2", "cores = -2"),
        COMPUTE.replace("cores = 2\n", ""),
        COMPUTE.replace("ports = 2", "ports = 1025"),
        COMPUTE.replace("ports = 2", "ports = 65536"),
        COMPUTE.replace("1GiB", "257TiB"),
        COMPUTE.replace("ports", "power = true\nports"),
        COMPUTE.replace("[[compute]]", "[compute]"),
        MEMORY.replace("1GiB", "0"),
        MEMORY.replace("1GiB", "16777215TiB"),
        MEMORY.replace("\"1GiB\"", "1073741824"),
        MEMORY.replace("m1", &"m".repeat(64)),
        MEMORY.replace("m1", &"m".repeat(100_000)),
        ACCELERATOR.replace("slots = 1", "slots = 0"),
        ACCELERATOR.replace("fpga", ""),
        ACCELERATOR.replace("fpga", "a\\u001b[31m"),
        ACCELERATOR.replace("fpga", &"x".repeat(64)),
        "\t[[rack]]\r\n\t\tname = \"r\u{202e}\u{1b}2\" # \r\n".to_owned(),
    ];
    let shown: Vec<_> = cases.iter().map(|case| mistake(case)).collect();
    insta::with_settings!({ snapshot_path => "scripts", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("clumsy", shown.join("\n\n"));
    });
}

#[test]
fn a_line_of_any_length_is_shown_in_part() {
    for long in ["a.".repeat(100_000), format!("x = {}", "[".repeat(100_000)), "ä".repeat(70_000)] {
        let shown = mistake(&long);
        assert!(shown.starts_with("line 6, column "), "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() < 200), "{shown}");
    }
    let shown = mistake(&format!("x = \"{}\" y", "z".repeat(70_000)));
    let (line, marks) = (shown.lines().nth(2).unwrap(), shown.lines().nth(3).unwrap());
    assert_eq!(line.chars().nth(marks.find('^').unwrap()), Some('y'), "{shown}");
}

#[test]
fn how_an_editor_saves_it_makes_no_difference() {
    let source = format!("{START}{COMPUTE}{MEMORY}");
    let events = file::read(&source).unwrap();
    for saved in [format!("\u{feff}{source}"), source.replace('\n', "\r\n")] {
        assert_eq!(file::read(&saved), Ok(events.clone()));
    }
    let shown = file::read("\u{feff}[rack\n").unwrap_err();
    assert_eq!((shown.line, shown.column), (1, 6), "{shown}");
}

#[test]
fn what_is_no_text_is_told_with_its_place() {
    assert_eq!(file::text(START.as_bytes()), Ok(START));
    let shown = file::text(b"[[rack]]\nname = \"r\xe4ck\"\n").unwrap_err();
    assert_eq!((shown.line, shown.column), (2, 10), "{shown}");
    assert!(shown.problem.contains("0xe4") && shown.problem.contains("UTF-8"), "{shown}");
    assert_eq!(file::text(b"\x1f\x8b\x08").unwrap_err().line, 1);
}

/// Whatever a file holds, it is read or its mistake is shown.
mod anything {
    use proptest::prelude::*;
    use rackmem_rack::file;

    proptest! {
        #[test]
        fn is_read_or_refused(
            mut source in prop::sample::select(vec![super::COMPUTE, super::MEMORY, super::ACCELERATOR])
                .prop_map(|entry| format!("{}{entry}", super::START).into_bytes()),
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 0..8),
        ) {
            for (place, byte, insert) in edits {
                let place = place.index(source.len());
                if insert { source.insert(place, byte) } else { source[place] = byte }
            }
            let read = file::text(&source).and_then(file::read);
            if let Err(mistake) = read {
                prop_assert!(mistake.line >= 1 && mistake.column >= 1);
                prop_assert!(!mistake.to_string().is_empty());
            }
        }
    }
}
