//! The table of targets: which columns there are, which fit a width, and how a row reads. Pure.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use rackmem_control::TargetStats;

use crate::rates::Rates;

/// A column: its head, its place in the order of importance (0 is never dropped), its text, its alignment.
struct Column {
    head: &'static str,
    rank: u8,
    text: fn(&TargetStats, &Rates) -> String,
    align: CellAlignment,
}

const fn right(head: &'static str, rank: u8, text: fn(&TargetStats, &Rates) -> String) -> Column {
    Column { head, rank, text, align: CellAlignment::Right }
}

const fn left(head: &'static str, rank: u8, text: fn(&TargetStats, &Rates) -> String) -> Column {
    Column { head, rank, text, align: CellAlignment::Left }
}

/// In the order of printing.
const COLUMNS: [Column; 17] = [
    right("PID", 0, |stats, _| stats.pid.to_string()),
    left("COMMAND", 0, |stats, _| printable(&stats.command)),
    right("MANAGED", 5, |stats, _| stats.managed.to_string()),
    right("LOCAL", 1, |stats, _| stats.local.to_string()),
    right("FAR", 2, |stats, _| stats.far.to_string()),
    right("LIMIT", 3, |stats, _| stats.limit.to_string()),
    right("FAULTS/S", 4, |_, rates| format!("{:.0}", rates.faults_per_s)),
    right("P50µs", 7, |stats, _| format!("{:.1}", stats.fault_latency.p50_us)),
    right("P99µs", 6, |stats, _| format!("{:.1}", stats.fault_latency.p99_us)),
    right("MAXµs", 14, |stats, _| format!("{:.0}", stats.fault_latency.max_us)),
    right("FETCH MiB/S", 9, |_, rates| format!("{:.1}", rates.fetched_mib_per_s)),
    right("EVICT MiB/S", 10, |_, rates| format!("{:.1}", rates.evicted_mib_per_s)),
    right("PREF MiB/S", 13, |_, rates| format!("{:.1}", rates.prefetched_mib_per_s)),
    right("PREF HIT", 11, |_, rates| percent(rates.prefetch_hit_share)),
    right("UNSENT", 12, |_, rates| percent(rates.unsent_share)),
    right("STALL", 8, |_, rates| percent(Some(rates.stall_share))),
    left("SERVERS", 15, |stats, _| servers(stats)),
];

/// Spaces between two columns.
const GAP: usize = 2;

/// The table of `rows` in at most `width` columns of a terminal: the least important columns go first.
pub(crate) fn render(rows: &[(TargetStats, Rates)], width: usize) -> String {
    let mut columns: Vec<(&Column, Vec<String>)> = COLUMNS
        .iter()
        .map(|column| (column, rows.iter().map(|(stats, rates)| (column.text)(stats, rates)).collect()))
        .collect();
    while needed(&columns) > width {
        let Some(rank) = columns.iter().map(|(column, _)| column.rank).max().filter(|rank| *rank > 0) else {
            break;
        };
        columns.retain(|(column, _)| column.rank != rank);
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|(column, _)| column.head));
    for row in 0..rows.len() {
        table.add_row(columns.iter().map(|(_, texts)| texts[row].as_str()));
    }
    for (at, (column, _)) in columns.iter().enumerate() {
        if let Some(formatted) = table.column_mut(at) {
            formatted.set_padding((0, GAP as u16)).set_cell_alignment(column.align);
        }
    }
    let text = table.to_string();
    text.lines()
        .map(|line| format!("{}\n", line.trim_end().chars().take(width).collect::<String>()))
        .collect()
}

fn needed(columns: &[(&Column, Vec<String>)]) -> usize {
    let width = |(column, texts): &(&Column, Vec<String>)| {
        texts
            .iter()
            .map(String::as_str)
            .chain([column.head])
            .map(|text| text.chars().count())
            .max()
            .unwrap_or(0)
    };
    columns.iter().map(|column| width(column) + GAP).sum::<usize>().saturating_sub(GAP)
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.0}%", share * 100.0))
}

/// Servers that are up go by their address; of any other the state is what matters.
fn servers(stats: &TargetStats) -> String {
    let texts: Vec<String> = stats
        .servers
        .iter()
        .map(|server| match server.state.as_str() {
            "up" => server.address.to_string(),
            state => format!("{} ({state})", server.address),
        })
        .collect();
    texts.join(" ")
}

/// A program chooses its own name; it must not choose what our terminal does.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rackmem_control::{Latency, ServerStats};
    use rackmem_types::Bytes;

    pub(crate) fn row(pid: u32, command: &str) -> (TargetStats, Rates) {
        let stats = TargetStats {
            pid,
            command: command.to_owned(),
            managed: Bytes(1 << 30),
            local: Bytes(256 << 20),
            far: Bytes(768 << 20),
            limit: Bytes(256 << 20),
            fault_latency: Latency { p50_us: 21.34, p99_us: 88.0, max_us: 1203.0 },
            servers: vec![ServerStats {
                address: "10.0.0.7:7070".parse().unwrap(),
                reserved: Bytes(1 << 30),
                used: Bytes(768 << 20),
                state: "up".to_owned(),
            }],
            ..TargetStats::default()
        };
        let rates = Rates {
            faults_per_s: 12_345.0,
            fetched_mib_per_s: 48.2,
            evicted_mib_per_s: 47.9,
            prefetched_mib_per_s: 3.3,
            prefetch_hit_share: Some(0.91),
            unsent_share: None,
            stall_share: 0.256,
        };
        (stats, rates)
    }

    #[test]
    fn wide_terminals_get_every_column() {
        let text = render(&[row(4242, "redis-server"), row(7, "sh")], 170);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                " PID  COMMAND       MANAGED   LOCAL     FAR   LIMIT  FAULTS/S  P50µs  P99µs  MAXµs  FETCH MiB/S  EVICT MiB/S  PREF MiB/S  PREF HIT  UNSENT  STALL  SERVERS",
                "4242  redis-server     1GiB  256MiB  768MiB  256MiB     12345   21.3   88.0   1203         48.2         47.9         3.3       91%       -    26%  10.0.0.7:7070",
                "   7  sh               1GiB  256MiB  768MiB  256MiB     12345   21.3   88.0   1203         48.2         47.9         3.3       91%       -    26%  10.0.0.7:7070",
            ]
        );
    }

    #[test]
    fn narrow_terminals_lose_the_least_important_columns() {
        let (mut stats, rates) = row(4242, "redis-server");
        assert!(render(&[(stats.clone(), rates)], 160).lines().next().unwrap().ends_with("STALL  SERVERS"));
        stats.servers.extend(stats.servers.clone());
        let at_160 = render(&[(stats, rates)], 160);
        assert!(
            at_160.lines().next().unwrap().ends_with("UNSENT  STALL"),
            "two servers do not fit: {at_160}"
        );
        let at_80 = render(&[row(4242, "redis-server")], 80);
        assert_eq!(
            at_80.lines().collect::<Vec<_>>(),
            [
                " PID  COMMAND       MANAGED   LOCAL     FAR   LIMIT  FAULTS/S  P50µs  P99µs",
                "4242  redis-server     1GiB  256MiB  768MiB  256MiB     12345   21.3   88.0",
            ]
        );
    }

    #[test]
    fn no_line_is_ever_wider_than_the_terminal() {
        let rows = [row(4242, "a-rather-long-command-name"), row(4_194_303, "x\u{1b}[2Jy")];
        for width in 1..200 {
            let text = render(&rows, width);
            assert_eq!(text.lines().count(), 3, "{text}");
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}: {text}");
            assert!(!text.contains('\u{1b}'));
        }
    }
}
