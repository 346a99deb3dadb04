//! Draws the state of `top`. It reads the state and changes nothing.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, LineGauge, Paragraph, Sparkline};

use rackmem_control::TargetStats;

use super::model::{App, History};
use crate::table;

/// Lines for the chosen target: bar, servers, and two rows of graphs.
const DETAIL_LINES: u16 = 14;

const KEYS: &str = "↑↓ choose   +/- limit by 10 %   d detach   q quit";

/// One frame.
pub(super) fn draw(frame: &mut Frame<'_>, app: &App) {
    let area = frame.area();
    let Some(row) = app.chosen_row() else {
        let text = "no process has far memory; start one with 'rackmem run' or 'rackmem attach'";
        let [body, foot] = Layout::vertical([Constraint::Min(0), Constraint::Length(1)]).areas(area);
        frame.render_widget(Paragraph::new(text), body);
        return draw_foot(frame, app, foot);
    };
    // On a terminal too low for both, the table comes first.
    let detail = if area.height >= DETAIL_LINES + 4 { DETAIL_LINES } else { 0 };
    let [list, below, foot] =
        Layout::vertical([Constraint::Min(1), Constraint::Length(detail), Constraint::Length(1)]).areas(area);
    draw_table(frame, app, row, list);
    if detail > 0 {
        let (stats, _) = &app.rows[row];
        draw_target(frame, stats, app.histories.get(&stats.pid), below);
    }
    draw_foot(frame, app, foot);
}

fn draw_table(frame: &mut Frame<'_>, app: &App, chosen: usize, area: Rect) {
    let text = table::render(&app.rows, usize::from(area.width));
    let mut lines = text.lines().map(str::to_owned);
    let head = Line::from(lines.next().unwrap_or_default()).bold();
    // Keep the chosen row in sight.
    let room = usize::from(area.height).saturating_sub(1).max(1);
    let first = (chosen + 1).saturating_sub(room);
    let rows = lines.enumerate().skip(first).map(|(at, line)| {
        let style = if at == chosen { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        Line::styled(line, style)
    });
    frame.render_widget(Paragraph::new([head].into_iter().chain(rows).collect::<Vec<_>>()), area);
}

fn draw_target(frame: &mut Frame<'_>, stats: &TargetStats, history: Option<&History>, area: Rect) {
    let title = format!(" {} {} ", stats.pid, table::printable(&stats.command));
    let block = Block::new().borders(Borders::TOP).title(title);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [bar, servers, upper, lower] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Fill(1),
    ])
    .areas(inner);

    let total = (stats.local.0 + stats.far.0).max(1);
    let label = format!("local {}  far {}  limit {}", stats.local, stats.far, stats.limit);
    let gauge = LineGauge::default()
        .label(label)
        .ratio((stats.local.0 as f64 / total as f64).clamp(0.0, 1.0))
        .filled_style(Style::new().fg(Color::Green))
        .unfilled_style(Style::new().fg(Color::Blue));
    frame.render_widget(gauge, bar);
    frame.render_widget(Paragraph::new(notes(stats)), servers);

    let Some(history) = history else { return };
    let halves = [Constraint::Fill(1), Constraint::Fill(1)];
    let [faults, p99] = Layout::horizontal(halves).spacing(1).areas(upper);
    let [fetched, evicted] = Layout::horizontal(halves).spacing(1).areas(lower);
    let mib = |kib: u64| format!("{:.1} MiB/s", kib as f64 / 1024.0);
    draw_graph(frame, faults, "faults", &history.faults, |value| format!("{value}/s"), Color::Yellow);
    draw_graph(frame, p99, "fault p99", &history.p99_us, |value| format!("{value} µs"), Color::Red);
    draw_graph(frame, fetched, "fetched", &history.fetched_kib, mib, Color::Cyan);
    draw_graph(frame, evicted, "evicted", &history.evicted_kib, mib, Color::Magenta);
}

/// The last warning, or else the memory servers.
fn notes(stats: &TargetStats) -> Line<'static> {
    if let Some(warning) = stats.warnings.last() {
        return Line::from(Span::styled(table::printable(warning), Style::new().fg(Color::Red)));
    }
    let servers = stats.servers.iter();
    let texts: Vec<String> = servers
        .map(|server| format!("{} {} of {} {}", server.address, server.used, server.reserved, server.state))
        .collect();
    Line::from(texts.join("   "))
}

fn draw_graph(
    frame: &mut Frame<'_>,
    area: Rect,
    name: &str,
    values: &VecDeque<u64>,
    unit: impl Fn(u64) -> String,
    colour: Color,
) {
    let now = values.back().copied().unwrap_or(0);
    let most = values.iter().copied().max().unwrap_or(0);
    let title = format!("{name} {}  (most {})", unit(now), unit(most));
    // The newest sample is at the right edge.
    let shown: Vec<u64> =
        values.iter().copied().skip(values.len().saturating_sub(usize::from(area.width))).collect();
    let graph =
        Sparkline::default().block(Block::new().title(title)).data(shown).max(most.max(1)).style(colour);
    frame.render_widget(graph, area);
}

fn draw_foot(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let line = match (&app.asking, &app.message) {
        (Some(pid), _) => {
            Line::from(format!("detach process {pid} and bring all its memory home? y/n")).bold()
        }
        (None, Some(message)) => Line::from(table::printable(message)),
        (None, None) => Line::from(KEYS).dim(),
    };
    frame.render_widget(Paragraph::new(line), area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::model::tests::{app, stats};
    use crate::top::model::{Input, Key};
    use rackmem_types::Bytes;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn frame(app: &App, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, app)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let cells = buffer.content().chunks(usize::from(width));
        cells.map(|line| line.iter().map(ratatui::buffer::Cell::symbol).collect::<String>()).collect()
    }

    #[test]
    fn shows_the_targets_and_the_chosen_one_in_detail() {
        let mut app = app(&[10, 20]);
        app.apply(Input::Key(Key::Down));
        let lines = frame(&app, 80, 24);
        assert!(lines[0].starts_with("PID  COMMAND       MANAGED"), "{lines:#?}");
        assert!(lines[1].starts_with(" 10") && lines[2].starts_with(" 20"), "{lines:#?}");
        let text = lines.join("\n");
        for part in [
            " 20 redis-server ",
            "local 256MiB  far 768MiB  limit 256MiB",
            "10.0.0.7:7070 768MiB of 1GiB up",
            "faults 1000/s  (most 1000/s)",
            "fault p99 88 µs",
            "fetched 2.0 MiB/s",
            "evicted 0.0 MiB/s",
            "█",
        ] {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
        assert!(lines[23].starts_with("↑↓ choose"), "{lines:#?}");
    }

    #[test]
    fn asks_before_a_detach_and_shows_messages_and_warnings() {
        let mut app = app(&[10]);
        app.apply(Input::Key(Key::Char('d')));
        assert!(frame(&app, 80, 24)[23].starts_with("detach process 10"));
        app.apply(Input::Key(Key::Escape));
        app.apply(Input::Message("process 10: local limit 1GiB".to_owned()));
        assert!(frame(&app, 80, 24)[23].starts_with("process 10: local limit 1GiB"));
        let warned = TargetStats { warnings: vec!["server gone\u{1b}[2J".to_owned()], ..stats(10, 9) };
        app.apply(Input::Sample(vec![warned]));
        assert!(frame(&app, 80, 24).join("\n").contains("server gone?[2J"));
    }

    #[test]
    fn fits_every_terminal() {
        let empty = App::new(Bytes(1 << 30));
        assert!(frame(&empty, 100, 5)[0].starts_with("no process has far memory"));
        let mut many = app(&(1..40).collect::<Vec<_>>());
        for _ in 0..30 {
            many.apply(Input::Key(Key::Down));
        }
        for (width, height) in [(1, 1), (20, 3), (40, 10), (80, 18), (200, 60)] {
            let lines = frame(&many, width, height);
            let in_sight = lines.iter().any(|line| line.trim_start().starts_with("31"));
            assert!(in_sight || width < 20 || height < 3, "{lines:#?}");
        }
    }
}
