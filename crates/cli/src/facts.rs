//! Tables of two shapes: rows under heads, and facts one below the other. Pure.

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};

/// Spaces between two columns.
const GAP: u16 = 2;

/// Rows under heads.
pub(crate) fn rows<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heads);
    for row in rows {
        table.add_row(row);
    }
    finish(table)
}

/// Facts, each with its name. Those without a value are left out.
pub(crate) fn facts(facts: &[(&str, Option<String>)]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    for (name, value) in facts {
        if let Some(value) = value {
            table.add_row([(*name).to_owned(), value.clone()]);
        }
    }
    finish(table)
}

fn finish(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_where_they_end() {
        let table = rows(["NAME", "STATE"], &[["web1".into(), "running".into()], ["a".into(), "off".into()]]);
        assert_eq!(table, "NAME  STATE\nweb1  running\na     off\n");
        assert_eq!(
            facts(&[("name", Some("web1".into())), ("pid", None), ("x", Some("y".into()))]),
            "name  web1\nx     y\n"
        );
    }
}
