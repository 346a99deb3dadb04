//! What `top` shows: the targets, which one is chosen, and its recent past. Pure: it neither draws nor asks.

use std::collections::{BTreeMap, VecDeque};

use rackmem_control::TargetStats;
use rackmem_pager::LIMIT_MIN;
use rackmem_types::{Bytes, PAGE_SIZE};

use crate::rates::Rates;

/// Samples that are kept per target: two minutes at two a second, wider than most terminals.
pub(super) const HISTORY: usize = 240;

/// A key, as far as it means something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Up,
    Down,
    Escape,
    Quit,
}

/// All that can happen to the screen.
#[derive(Clone, Debug)]
pub(super) enum Input {
    Sample(Vec<TargetStats>),
    Message(String),
    Key(Key),
}

/// What the user wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    Limit(u32, Bytes),
    Detach(u32),
}

/// The recent past of one target, newest last.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) faults: VecDeque<u64>,
    pub(super) fetched_kib: VecDeque<u64>,
    pub(super) evicted_kib: VecDeque<u64>,
    pub(super) p99_us: VecDeque<u64>,
}

impl History {
    fn push(&mut self, stats: &TargetStats, rates: &Rates) {
        let lanes = [
            (&mut self.faults, rates.faults_per_s),
            (&mut self.fetched_kib, (rates.fetched_mib_per_s + rates.prefetched_mib_per_s) * 1024.0),
            (&mut self.evicted_kib, rates.evicted_mib_per_s * 1024.0),
            (&mut self.p99_us, stats.fault_latency.p99_us),
        ];
        for (lane, value) in lanes {
            if lane.len() == HISTORY {
                lane.pop_front();
            }
            lane.push_back(value.round() as u64);
        }
    }
}

/// The state of the screen.
#[derive(Clone, Debug)]
pub(super) struct App {
    pub(super) rows: Vec<(TargetStats, Rates)>,
    pub(super) histories: BTreeMap<u32, History>,
    /// Process id of the chosen target: it stays chosen while others come and go.
    pub(super) chosen: Option<u32>,
    /// The target whose detach waits for a yes.
    pub(super) asking: Option<u32>,
    pub(super) message: Option<String>,
    /// Limits that were asked for and are not in force yet, so that several presses add up.
    wanted: BTreeMap<u32, Bytes>,
    ram: Bytes,
}

impl App {
    /// An empty screen, on a machine with that much RAM.
    pub(super) fn new(ram: Bytes) -> Self {
        Self {
            rows: Vec::new(),
            histories: BTreeMap::new(),
            chosen: None,
            asking: None,
            message: None,
            wanted: BTreeMap::new(),
            ram,
        }
    }

    /// Takes one input in; gives what is to be done outside.
    pub(super) fn apply(&mut self, input: Input) -> Option<Action> {
        match input {
            Input::Sample(stats) => self.sample(stats),
            Input::Message(message) => self.message = Some(message),
            Input::Key(Key::Quit) => return Some(Action::Quit),
            Input::Key(key) if self.asking.is_some() => return self.answer(key),
            Input::Key(key) => return self.key(key),
        }
        None
    }

    /// Index of the chosen target.
    pub(super) fn chosen_row(&self) -> Option<usize> {
        self.rows.iter().position(|(stats, _)| Some(stats.pid) == self.chosen)
    }

    fn sample(&mut self, samples: Vec<TargetStats>) {
        let old = std::mem::take(&mut self.rows);
        let old_row = old.iter().position(|(stats, _)| Some(stats.pid) == self.chosen);
        for stats in samples {
            let before = old.iter().find(|(before, _)| before.pid == stats.pid);
            let rates = before.map(|(before, _)| Rates::between(before, &stats)).unwrap_or_default();
            if before.is_some() {
                self.histories.entry(stats.pid).or_default().push(&stats, &rates);
            }
            if self.wanted.get(&stats.pid) == Some(&stats.limit) {
                self.wanted.remove(&stats.pid);
            }
            self.rows.push((stats, rates));
        }
        let is_there = |pid: u32| self.rows.iter().any(|(stats, _)| stats.pid == pid);
        self.histories.retain(|pid, _| is_there(*pid));
        self.wanted.retain(|pid, _| is_there(*pid));
        self.asking = self.asking.filter(|pid| is_there(*pid));
        if !self.chosen.is_some_and(is_there) {
            let row = old_row.unwrap_or(0).min(self.rows.len().saturating_sub(1));
            self.chosen = self.rows.get(row).map(|(stats, _)| stats.pid);
        }
    }

    fn key(&mut self, key: Key) -> Option<Action> {
        self.message = None;
        match key {
            Key::Char('q') => return Some(Action::Quit),
            Key::Up | Key::Char('k') => self.choose(-1),
            Key::Down | Key::Char('j') => self.choose(1),
            Key::Char('+' | '=') => return self.limit(11),
            Key::Char('-') => return self.limit(9),
            Key::Char('d') => self.asking = self.chosen,
            _ => {}
        }
        None
    }

    fn answer(&mut self, key: Key) -> Option<Action> {
        let asking = self.asking.take()?;
        if key != Key::Char('y') {
            return None;
        }
        self.message = Some(format!("process {asking}: bringing its memory home…"));
        Some(Action::Detach(asking))
    }

    fn choose(&mut self, step: isize) {
        let last = self.rows.len().saturating_sub(1);
        let row = self.chosen_row().unwrap_or(0).saturating_add_signed(step).min(last);
        self.chosen = self.rows.get(row).map(|(stats, _)| stats.pid);
    }

    /// A new limit of so many tenths of the present one, in whole pages, within reason.
    fn limit(&mut self, tenths: u64) -> Option<Action> {
        let (stats, _) = &self.rows[self.chosen_row()?];
        let now = self.wanted.get(&stats.pid).copied().unwrap_or(stats.limit);
        let pages = (u128::from(now.pages()) * u128::from(tenths) / 10) as u64;
        let limit = Bytes(pages.saturating_mul(PAGE_SIZE as u64)).clamp(LIMIT_MIN, self.ram.max(LIMIT_MIN));
        self.message = Some(format!("process {}: setting the limit to {limit}…", stats.pid));
        self.wanted.insert(stats.pid, limit);
        Some(Action::Limit(stats.pid, limit))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::table::tests::row;

    pub(in crate::top) fn stats(pid: u32, second: u64) -> TargetStats {
        let (stats, _) = row(pid, "redis-server");
        TargetStats {
            uptime_us: second * 1_000_000,
            faults: second * 1000,
            pages_fetched: second * 512,
            ..stats
        }
    }

    pub(in crate::top) fn app(pids: &[u32]) -> App {
        let mut app = App::new(Bytes(1 << 40));
        for second in 1..=3 {
            app.apply(Input::Sample(pids.iter().map(|pid| stats(*pid, second)).collect()));
        }
        app
    }

    #[test]
    fn the_chosen_target_stays_chosen_while_others_come_and_go() {
        let mut app = app(&[10, 20, 30]);
        assert_eq!(app.chosen, Some(10));
        app.apply(Input::Key(Key::Down));
        assert_eq!(app.chosen, Some(20));
        app.apply(Input::Sample(vec![stats(5, 4), stats(20, 4), stats(30, 4)]));
        assert_eq!((app.chosen, app.chosen_row()), (Some(20), Some(1)));
        app.apply(Input::Sample(vec![stats(5, 5), stats(30, 5)]));
        assert_eq!(app.chosen, Some(30), "the one that took its place");
        for _ in 0..5 {
            app.apply(Input::Key(Key::Up));
        }
        assert_eq!(app.chosen, Some(5));
        app.apply(Input::Sample(Vec::new()));
        assert_eq!((app.chosen, app.histories.len()), (None, 0));
        assert_eq!(app.apply(Input::Key(Key::Char('+'))), None);
    }

    #[test]
    fn rates_become_history() {
        let app = app(&[10]);
        let history = &app.histories[&10];
        assert_eq!(history.faults, [1000, 1000]);
        assert_eq!(history.fetched_kib, [2048, 2048]);
        assert_eq!(history.p99_us, [88, 88]);
    }

    #[test]
    fn plus_and_minus_change_the_limit_by_a_tenth() {
        let mut app = app(&[10]);
        let mib = |mib: u64| Bytes(mib << 20);
        let up = Bytes::from_pages(mib(256).pages() * 11 / 10);
        assert_eq!(app.apply(Input::Key(Key::Char('+'))), Some(Action::Limit(10, up)));
        let twice = Bytes::from_pages(up.pages() * 11 / 10);
        assert_eq!(app.apply(Input::Key(Key::Char('+'))), Some(Action::Limit(10, twice)), "presses add up");
        app.apply(Input::Sample(vec![TargetStats { limit: twice, ..stats(10, 9) }]));
        let down = Bytes::from_pages(twice.pages() * 9 / 10);
        assert_eq!(app.apply(Input::Key(Key::Char('-'))), Some(Action::Limit(10, down)));
        app.ram = mib(16);
        assert_eq!(app.apply(Input::Key(Key::Char('+'))), Some(Action::Limit(10, mib(16))));
    }

    #[test]
    fn a_detach_needs_a_yes() {
        let mut app = app(&[10]);
        app.apply(Input::Key(Key::Char('d')));
        assert_eq!(app.asking, Some(10));
        assert_eq!(app.apply(Input::Key(Key::Char('n'))), None);
        assert_eq!(app.asking, None);
        app.apply(Input::Key(Key::Char('d')));
        assert_eq!(app.apply(Input::Key(Key::Char('y'))), Some(Action::Detach(10)));
        app.apply(Input::Key(Key::Char('d')));
        assert_eq!(app.apply(Input::Key(Key::Quit)), Some(Action::Quit), "Ctrl-C always quits");
    }
}
