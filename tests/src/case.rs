//! One program, run without rackmem and then under it: both runs must look the same from outside.

use std::ffi::OsString;
use std::fmt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::machine;
use crate::process::{Ended, Process};
use crate::rack::{Rack, rackmem};

/// Without rackmem every program ends within this time.
const NATIVE: Duration = Duration::from_secs(30);

/// With a tenth of its memory local it may take this long, on a machine that has other work as well; far more is a hang.
const MANAGED: Duration = Duration::from_secs(120);

/// How far above the local limit the resident memory that rackmem manages may lie for most of the time. The evictor rests
/// below the limit, so the middle of a run is there too, by 0.1 to 13 MiB in nearly all cases. A run of a quarter of a second that
/// begins with fresh memory is above it for most of its time: 1.7 MiB were seen.
const ABOVE_LIMIT_KIB: u64 = 16 << 10;

/// How far above the local limit it may lie at any moment: a new mapping is managed only once it is found, and fresh
/// memory fills at gigabytes a second. 42 MiB were seen where other work kept the pager from its CPU.
const GROWTH_KIB: u64 = 64 << 10;

/// So often a program is run until one run is kept below its limit. When memory leaves depends on when the machine lets the pager
/// and the server run, and a program that is done within a second may end before: on a busy machine one run says little.
/// What a program computes has to be right in each.
const RUNS_FOR_LIMIT: usize = 3;

/// Time between two looks at a program's memory: each makes the kernel walk through all of it.
const SAMPLE_EVERY: Duration = Duration::from_millis(20);

/// A program that uses a known amount of memory and prints the same on each run.
#[derive(Debug)]
pub struct Case {
    program: Vec<OsString>,
    options: Vec<&'static str>,
    memory_mib: u64,
    reads_output: bool,
    watches_resident: bool,
}

impl Case {
    /// `program`, which uses about `memory_mib` MiB.
    pub fn new<A: Into<OsString>>(memory_mib: u64, program: impl IntoIterator<Item = A>) -> Self {
        let program = program.into_iter().map(Into::into).collect();
        Self { program, options: Vec::new(), memory_mib, reads_output: true, watches_resident: true }
    }

    /// The program's output has times in it: only its exit code says whether it passed.
    pub fn with_varying_output(self) -> Self {
        Self { reads_output: false, ..self }
    }

    /// The program's memory is spread over processes, so that none alone shows the limit.
    pub fn in_several_processes(self) -> Self {
        Self { watches_resident: false, ..self }
    }

    /// `rackmem run` gets more options.
    pub fn with_options(self, options: &[&'static str]) -> Self {
        Self { options: options.to_vec(), ..self }
    }

    /// Runs the program with `percent` of its memory local and compares.
    #[track_caller]
    pub fn check(&self, percent: u64) {
        self.check_on(&Rack::start(), percent);
    }

    /// The same with the memory servers of `rack`.
    #[track_caller]
    pub fn check_on(&self, rack: &Rack, percent: u64) {
        let (native, used) = Self::run(Command::new(&self.program[0]).args(&self.program[1..]), NATIVE);
        let native = native.expect_success("without rackmem, where it has to pass too");
        let local_mib = self.memory_mib * percent / 100;
        if self.watches_resident {
            let stated_kib = self.memory_mib << 10;
            assert!(
                used.peak_kib() >= stated_kib * 3 / 4,
                "it uses {} KiB only, not {stated_kib}",
                used.peak_kib()
            );
        }
        let mut above = Vec::new();
        for _ in 0..RUNS_FOR_LIMIT {
            let (managed, resident) =
                Self::run(&mut rack.run(local_mib, &self.options, &self.program), MANAGED);
            let managed =
                managed.expect_success(&format!("with {local_mib} of {} MiB local", self.memory_mib));
            if self.reads_output {
                assert_eq!(managed.stdout, native.stdout, "standard output under rackmem and without it");
                assert_eq!(managed.stderr, native.stderr, "standard error under rackmem and without it");
            }
            if !self.watches_resident || resident.keeps(local_mib << 10) {
                return;
            }
            above.push(resident);
        }
        panic!("memory in RAM, with a limit of {} KiB: {above:#?}", local_mib << 10);
    }

    /// Runs `command` to its end; also how much memory its largest process had resident, rackmem's own left out.
    #[track_caller]
    fn run(command: &mut Command, limit: Duration) -> (Ended, Resident) {
        let binary = rackmem();
        let (mut samples, mut sampled) = (Vec::new(), None::<Instant>);
        let ended = Process::start(command.stdin(Stdio::null()), limit).finish_watched(|pid| {
            if sampled.is_some_and(|sampled| sampled.elapsed() < SAMPLE_EVERY) {
                return;
            }
            let programs = machine::tree(pid).into_iter().filter(|pid| !machine::runs(*pid, &binary));
            samples.push(programs.map(machine::managed_kib).max().unwrap_or(0));
            sampled = Some(Instant::now());
        });
        (ended, Resident { samples })
    }
}

/// Managed memory that was in RAM over a run, KiB: one look every [`SAMPLE_EVERY`].
struct Resident {
    samples: Vec<u64>,
}

impl Resident {
    fn peak_kib(&self) -> u64 {
        self.samples.iter().copied().max().unwrap_or(0)
    }

    fn median_kib(&self) -> u64 {
        let mut sorted = self.samples.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or(0)
    }

    /// Whether a local limit was kept.
    fn keeps(&self, limit_kib: u64) -> bool {
        self.median_kib() <= limit_kib + ABOVE_LIMIT_KIB && self.peak_kib() <= limit_kib + GROWTH_KIB
    }
}

impl fmt::Debug for Resident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples } = self;
        write!(
            f,
            "{} KiB at most, {} KiB mostly, every {SAMPLE_EVERY:?}: {samples:?}",
            self.peak_kib(),
            self.median_kib()
        )
    }
}
