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
