//! Does the orders, one after the other, and the check in the background between them: one thread, so that memory is never
//! looked at while it is being changed.

use std::process::Command;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use guest_probe::{
    Answer, Checked, Churned, Damage, Filled, Held as HeldAnswer, Memory, Order, Outcome, Ready, Reply,
    Request, Side,
};
use rackmem_types::Bytes;

use crate::guest;
use crate::line::Line;
use crate::memory::{Held, micros, touch_many};
use crate::page::Page;
use crate::refusal::Refusal;
use crate::shell;

/// How often an awaited size is looked at. Looking takes some 20 µs.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Pages that are checked between two looks at the line: some 50 µs' worth.
const CHURN_PAGES: u32 = 32;

pub(crate) struct Service {
    run: u32,
    held: Option<Held>,
    page: Option<Page>,
    churn: Churn,
}

/// The check in the background.
#[derive(Default)]
struct Churn {
    counters: Option<Churned>,
    writes_percent: u8,
    next: u32,
    damage: Option<Damage>,
}

impl Service {
    pub(crate) fn new(run: u32) -> Self {
        Self { run, held: None, page: None, churn: Churn::default() }
    }

    /// Greets, and serves until the line or the guest ends.
    pub(crate) fn serve(mut self, mut line: Line, ready: Ready) -> Result<(), Refusal> {
        let lines = line.lines()?;
        line.send(&Reply { id: None, outcome: Outcome::Answer(Answer::Ready(ready)) })?;
        while let Some(text) = self.next_line(&lines) {
            let (id, order) = Request::read(&text);
            let power_off = matches!(order, Ok(Order::PowerOff));
            let outcome = match order.map_err(Refusal::from).and_then(|order| self.execute(order)) {
                Ok(answer) => Outcome::Answer(answer),
                Err(refusal) => Outcome::Error(refusal.to_string()),
            };
            line.send(&Reply { id, outcome })?;
            if power_off {
                end_guest()?;
            }
        }
        Ok(())
    }

    /// The next line; while none is there, the check in the background goes on.
    fn next_line(&mut self, lines: &Receiver<String>) -> Option<String> {
        loop {
            if !self.churning() {
                return lines.recv().ok();
            }
            match lines.try_recv() {
                Ok(line) => return Some(line),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => self.churn_on(),
            }
        }
    }

    fn execute(&mut self, order: Order) -> Result<Answer, Refusal> {
        let start = Instant::now();
        let elapsed_us = || micros(start.elapsed());
        match order {
            Order::Hello => Ok(Answer::Ready(guest::ready(self.run)?)),
            Order::Info => Ok(Answer::Info(Box::new(guest::info(self.held_bytes())?))),
            Order::Fill { seed, bytes } => {
                // What was held goes first, so that both need not fit.
                self.held = None;
                self.churn.next = 0;
                let held = self.held.insert(Held::new(seed, bytes)?).bytes();
                Ok(Answer::Filled(Filled { held, elapsed_us: elapsed_us() }))
            }
            Order::Grow(bytes) => {
                let held = self.held()?;
                held.grow(bytes)?;
                Ok(Answer::Filled(Filled { held: held.bytes(), elapsed_us: elapsed_us() }))
            }
            Order::Check => {
                Ok(Answer::Checked(Checked { pages: self.held()?.check()?, elapsed_us: elapsed_us() }))
            }
            Order::Touch { pattern, pages, writes_percent } => {
                Ok(Answer::Touched(touch_many(self.held()?, pattern, pages, writes_percent)?))
            }
            Order::Shrink(bytes) => {
                self.held()?.shrink(bytes)?;
                if self.held_bytes() == Bytes(0) {
                    self.held = None;
                }
                Ok(Answer::Held(HeldAnswer { held: self.held_bytes() }))
            }
            Order::Release => {
                self.held = None;
                Ok(Answer::Held(HeldAnswer { held: Bytes(0) }))
            }
            Order::WaitMemory { available, side, bytes, seconds } => {
                self.wait(start, available, side, bytes, seconds).map(Answer::Memory)
            }
            Order::ChurnStart { writes_percent } => {
                self.held()?;
                let counters = Churned { running: true, checked: 0, written: 0, longest_us: 0 };
                self.churn = Churn { counters: Some(counters), writes_percent, ..Churn::default() };
                Ok(Answer::Churned(counters))
            }
            Order::Churn => self.churned(),
            Order::ChurnStop => {
                if let Some(counters) = &mut self.churn.counters {
                    counters.running = false;
                }
                self.churned()
            }
            Order::Page => Ok(Answer::Page(self.page.insert(Page::new()?).place()?)),
            Order::PageRead => Ok(Answer::Page(self.page.as_ref().ok_or(Refusal::NoPage)?.read()?)),
            Order::PageWrite(value) => {
                Ok(Answer::Page(self.page.as_mut().ok_or(Refusal::NoPage)?.write(value)?))
            }
            Order::PageRelease => {
                self.page.take().ok_or(Refusal::NoPage)?;
                Ok(Answer::Done)
            }
            Order::Run(command) => Ok(Answer::Ran(shell::run(&command)?)),
            Order::PowerOff => Ok(Answer::Done),
        }
    }

    fn held(&mut self) -> Result<&mut Held, Refusal> {
        self.held.as_mut().ok_or(Refusal::NothingHeld)
    }

    fn held_bytes(&self) -> Bytes {
        self.held.as_ref().map_or(Bytes(0), Held::bytes)
    }

    fn wait(
        &mut self,
        start: Instant,
        available: bool,
        side: Side,
        wanted: Bytes,
        seconds: u32,
    ) -> Result<Memory, Refusal> {
        loop {
            let memory = guest::memory()?;
            let now = if available { memory.available } else { memory.total };
            let (there, side) = match side {
                Side::AtLeast => (now >= wanted, "at least"),
                Side::AtMost => (now <= wanted, "at most"),
            };
            if there {
                return Ok(Memory { waited_us: Some(micros(start.elapsed())), ..memory });
            }
            if start.elapsed() > Duration::from_secs(seconds.into()) {
                let what = if available { "what is available" } else { "the total" };
                return Err(Refusal::WaitedInVain { seconds, what, now, side, wanted });
            }
            if self.churning() { self.churn_on() } else { sleep(LOOK_EVERY) }
        }
    }

    fn churning(&self) -> bool {
        self.held.is_some() && self.churn.counters.is_some_and(|counters| counters.running)
    }

    fn churned(&self) -> Result<Answer, Refusal> {
        match self.churn.damage {
            Some(damage) => Err(Refusal::DamagedUnderWay(damage)),
            None => self.churn.counters.map(Answer::Churned).ok_or(Refusal::NoChurn),
        }
    }

    /// Checks a few pages more, and writes some of them anew.
    fn churn_on(&mut self) {
        let (Some(held), Some(counters)) = (&mut self.held, &mut self.churn.counters) else { return };
        let mut before = Instant::now();
        for _ in 0..CHURN_PAGES {
            let page = self.churn.next % held.pages();
            self.churn.next = page + 1;
            if let Err(damage) = held.check_page(page) {
                self.churn.damage = Some(damage);
                counters.running = false;
                return;
            }
            counters.checked += 1;
            if held.chance(self.churn.writes_percent) {
                held.write_page(page);
                counters.written += 1;
            }
            let now = Instant::now();
            counters.longest_us = counters.longest_us.max(micros(now - before));
            before = now;
        }
    }
}

/// Ends the machine.
fn end_guest() -> Result<(), Refusal> {
    const PROGRAM: &str = "poweroff";
    let status = Command::new(PROGRAM).arg("-f").status();
    match status.map_err(|source| Refusal::Program { program: PROGRAM, source })? {
        status if status.success() => Ok(()),
        status => Err(Refusal::ProgramFailed { program: PROGRAM, status }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        let mut service = Service::new(1);
        service.execute("fill 7 4MiB".parse().unwrap()).unwrap();
        service
    }

    fn refused(service: &mut Service, order: &str) -> String {
        service.execute(order.parse().unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn the_background_check_goes_round_and_writes() {
        let mut service = service();
        service.execute("churn start writes 50".parse().unwrap()).unwrap();
        for _ in 0..100 {
            service.churn_on();
        }
        let Ok(Answer::Churned(churned)) = service.execute(Order::ChurnStop) else { panic!("no counters") };
        assert_eq!(churned.checked, 3200);
        assert!((1000..2200).contains(&churned.written), "{churned:?}");
        assert!(!churned.running);
        service.execute(Order::Check).unwrap();
    }

    #[test]
    fn the_background_check_goes_on_while_a_size_is_awaited() {
        let mut service = service();
        service.execute("churn start".parse().unwrap()).unwrap();
        let error = refused(&mut service, "wait total at-most 0 1");
        assert!(error.contains("not at most 0B"), "{error}");
        let Ok(Answer::Churned(churned)) = service.execute(Order::Churn) else { panic!("no counters") };
        assert!(churned.running && churned.checked > 1024, "{churned:?}");
    }

    #[test]
    fn growing_between_two_checks_keeps_everything_right() {
        let mut service = service();
        service.execute("churn start writes 30".parse().unwrap()).unwrap();
        for order in ["grow 6MiB", "shrink 2MiB", "shrink 6MiB", "grow 2MiB"] {
            service.execute(order.parse().unwrap()).unwrap();
            for _ in 0..64 {
                service.churn_on();
            }
        }
        service.execute(Order::ChurnStop).unwrap();
        service.execute(Order::Check).unwrap();
    }

    #[test]
    fn refusals_say_what_to_do() {
        let mut service = Service::new(1);
        assert_eq!(refused(&mut service, "check"), "nothing is held: order `fill SEED BYTES` first");
        assert_eq!(refused(&mut service, "page read"), "no page is held: order `page` first");
        assert_eq!(
            refused(&mut service, "churn"),
            "no check in the background was started: order `churn start` first"
        );
        service.execute("fill 7 2MiB".parse().unwrap()).unwrap();
        assert_eq!(refused(&mut service, "shrink 3MiB"), "only 2MiB is held, 3MiB cannot be given back");
        assert_eq!(refused(&mut service, "grow 1024TiB"), "1024TiB is more than the probe can number: 16TiB");
    }
}
