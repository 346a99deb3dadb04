//! One program, run without rackmem and then under it: both runs must look the same from outside.

use std::ffi::OsString;
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
        let (managed, resident) = Self::run(&mut rack.run(local_mib, &self.options, &self.program), MANAGED);
        let managed = managed.expect_success(&format!("with {local_mib} of {} MiB local", self.memory_mib));
        if self.reads_output {
            assert_eq!(managed.stdout, native.stdout, "standard output under rackmem and without it");
            assert_eq!(managed.stderr, native.stderr, "standard error under rackmem and without it");
        }
        if self.watches_resident {
            let stated_kib = self.memory_mib << 10;
            assert!(
                used.peak_kib >= stated_kib * 3 / 4,
                "it uses {} KiB only, not {stated_kib}",
                used.peak_kib
            );
            let limit_kib = local_mib << 10;
            let Resident { peak_kib, median_kib } = resident;
            let text =
                format!("{peak_kib} KiB at most, {median_kib} KiB mostly, with a limit of {limit_kib} KiB");
            assert!(
                median_kib <= limit_kib + ABOVE_LIMIT_KIB && peak_kib <= limit_kib + GROWTH_KIB,
                "{text}"
            );
        }
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
        samples.sort_unstable();
        let median_kib = samples.get(samples.len() / 2).copied().unwrap_or(0);
        (ended, Resident { peak_kib: samples.last().copied().unwrap_or(0), median_kib })
    }
}

/// Managed memory that was in RAM, sampled over a run.
#[derive(Debug)]
struct Resident {
    peak_kib: u64,
    median_kib: u64,
}
