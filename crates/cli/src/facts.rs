//! Tables of two shapes: rows under heads, and facts one below the other. Pure.
//!
//! What is too wide for a terminal loses the columns that can be spared; then its last column, which may be a sentence, is broken into
//! lines. Where nobody says how wide it may be, each row is one line, for programs that read it.

use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width};

/// Spaces between two columns.
const GAP: u16 = 2;

/// A last column that is wider than this is text, and can be broken; it never gets less room than this.
const TEXT_MIN: u16 = 24;

/// Rows under heads, at most `width` wide where that is possible. `spare` names columns that can go, the first of them first.
pub(crate) fn rows<const N: usize>(
    heads: [&str; N],
    spare: &[&str],
    rows: &[[String; N]],
    width: usize,
) -> String {
    let mut shown = (0..N).collect::<Vec<_>>();
    for gone in std::iter::once(None).chain(spare.iter().map(Some)) {
        shown.retain(|at| gone.is_none_or(|gone| heads[*at] != *gone));
        let mut table = Table::new();
        table.set_header(shown.iter().map(|at| heads[*at]));
        for row in rows {
            table.add_row(shown.iter().map(|at| &row[*at]));
        }
        if needed(&table) <= width || gone == spare.last() {
            return finish(table, width);
        }
    }
    String::new()
}

/// Facts, each with its name. Those without a value are left out.
pub(crate) fn facts(facts: &[(&str, Option<String>)], width: usize) -> String {
    let mut table = Table::new();
    for (name, value) in facts {
        if let Some(value) = value {
            table.add_row([name, value.as_str()]);
        }
    }
    finish(table, width)
}

/// The least columns that rows can do with: of a last column that is text only its beginning has to stand beside the others.
fn needed(table: &Table) -> usize {
    let widths = table.column_max_content_widths();
    let Some((last, others)) = widths.split_last() else { return 0 };
    let others: usize = others.iter().map(|width| usize::from(width + GAP)).sum();
    others + usize::from((*last).min(TEXT_MIN))
}

fn finish(mut table: Table, width: usize) -> String {
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let mut widths = table.column_max_content_widths();
    let last = widths.pop();
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP)).set_constraint(ColumnConstraint::ContentWidth);
    }
    if let Some(text) = last.filter(|last| *last > TEXT_MIN).and_then(|_| table.column_mut(widths.len())) {
        text.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(TEXT_MIN + GAP)));
    }
    // The gap after the last column is cut off again.
    if let Ok(width) = u16::try_from(width.saturating_add(usize::from(GAP))) {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: usize = usize::MAX;
    const SAYS: &str = "no compute brick has 64 cores free";

    fn table(width: usize, says: &str) -> String {
        let row = |name: &str, state: &str, says: &str| [name.into(), state.into(), "me".into(), says.into()];
        let rows_of = [row("web1", "running", says), row("a", "off", "-")];
        rows(["NAME", "STATE", "BY", "SAYS"], &["BY", "STATE"], &rows_of, width)
    }

    #[test]
    fn columns_line_up_and_lines_end_where_they_end() {
        assert_eq!(table(WIDE, ""), "NAME  STATE    BY  SAYS\nweb1  running  me\na     off      me  -\n");
        let told = [("name", Some("web1".into())), ("pid", None), ("x", Some("y".into()))];
        assert_eq!(facts(&told, WIDE), "name  web1\nx     y\n");
        assert_eq!(facts(&[("pid", None)], WIDE), "");
    }

    #[test]
    fn text_is_broken_beside_its_row_and_never_for_a_program() {
        assert!(table(WIDE, SAYS).contains("web1  running  me  no compute brick has 64 cores free\n"));
        assert_eq!(
            table(43, SAYS),
            "NAME  STATE    BY  SAYS\nweb1  running  me  no compute brick has 64\n                   cores free\na     off      me  -\n"
        );
        let fact = [("error", Some(SAYS.into()))];
        assert_eq!(facts(&fact, 31), "error  no compute brick has 64\n       cores free\n");
    }

    #[test]
    fn what_can_be_spared_goes_first_and_nothing_else() {
        assert_eq!(table(20, "x"), "NAME  STATE    SAYS\nweb1  running  x\na     off      -\n");
        assert_eq!(table(5, "x"), "NAME  SAYS\nweb1  x\na     -\n");
        assert_eq!(table(5, SAYS), "NAME  SAYS\nweb1  no compute brick has 64\n      cores free\na     -\n");
    }
}
