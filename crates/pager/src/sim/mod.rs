//! A seeded simulator: the pager's own fault thread, evictor and keeper steps, against a simulated kernel, simulated memory
//! servers and a simulated program with several threads and processes. `shuttle` runs them all on one thread and
//! decides at every lock, by the seed, who goes on; every other chance comes from the same seed.
//!
//! Every read of the program is compared with what it wrote last: zeros and old content are caught, SIGBUS is accepted only
//! after a server did harm, and a thread that is never answered uses up the steps. A failing seed is printed;
//! `RACKMEM_SIM_SEED=n` runs it alone, `RACKMEM_SIM_SEEDS=n` runs so many, from `RACKMEM_SIM_FIRST` on.

mod calls;
mod check;
mod kernel;
mod program;
mod rack;
mod rng;
mod world;

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use shuttle::scheduler::RandomScheduler;
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use self::calls::{SimInhabitant, SimMapping};
use self::kernel::PAGE;
use self::program::{BADGE, Program, STAGING, staging};
use self::rack::{Rack, SimPort};
use self::rng::Rng;
use self::world::World;
use crate::Shared;
use crate::core::Core;
use crate::detach::detach;
use crate::evict::Evictor;
use crate::keeper;
use crate::late;
use crate::procfs::Span;
use crate::register;
use crate::serve::Server;
use crate::space::Inside;
use crate::table::SpaceId;
use crate::vacate::vacate;

/// Seeds of an ordinary test run.
const SEEDS: u64 = 250;
/// Rounds of the fault thread without a step of the program, after which somebody is said to wait for ever.
const ROUNDS_MAX: u32 = 10_000;

/// What a seed decides before anything runs.
struct Plan {
    limit: u64,
    standby: usize,
    extents_max: usize,
    lie_one_in: u64,
    dawdle_one_in: u64,
    /// Whether the kernel can move pages (Linux 6.8).
    can_move: bool,
    kills: bool,
    forks: bool,
    moves: bool,
    detaches: bool,
    /// Whether extents are emptied while the program runs.
    vacates: bool,
    steps: u64,
}

impl Plan {
    fn new(seed: u64, rng: &mut Rng) -> Self {
        Self {
            limit: 96 + rng.below(160),
            standby: [16, 160, 256][rng.below(3) as usize],
            extents_max: if rng.one_in(6) { 2 } else { 20 },
            lie_one_in: if rng.one_in(4) { 40 } else { 0 },
            dawdle_one_in: [0, 20, 4][rng.below(3) as usize],
            can_move: seed % 4 != 3,
            kills: rng.one_in(4),
            forks: !rng.one_in(3),
            moves: rng.one_in(2),
            detaches: rng.one_in(3),
            steps: 40 + rng.below(80),
            vacates: rng.one_in(2),
        }
    }
}

/// All that one simulation is made of.
struct Simulation {
    shared: Shared,
    world: Arc<World>,
    rack: Arc<crate::sync::Mutex<Rack>>,
    /// The fault thread has nothing to do any more.
    served: AtomicBool,
}

fn simulate(seed: u64) {
    let mut rng = Rng::new(seed);
    let plan = Plan::new(seed, &mut rng);
    let world = World::new(rng.next(), plan.dawdle_one_in);
    let rack = Rack::new(plan.extents_max, plan.lie_one_in);
    let core = Core::new(plan.limit, plan.standby, None, true).unwrap();
    let sim = Simulation { shared: Shared::new(core).unwrap(), world, rack, served: AtomicBool::new(false) };
    let memory = sim.world.kernel().memory_new();
    let program = Program {
        world: Arc::clone(&sim.world),
        rack: Arc::clone(&sim.rack),
        memory,
        steps: plan.steps,
        kills: plan.kills,
        forks: plan.forks,
        moves: plan.moves,
    };
    program.begin();
    program::prefill(&sim.world, memory);
    sim.attach(memory);
    let done = AtomicBool::new(false);
    shuttle::thread::scope(|scope| {
        scope.spawn(|| sim.serve());
        let evictor = scope.spawn(|| sim.evict(plan.can_move));
        scope.spawn(|| sim.keep());
        let vacating = plan.vacates.then(|| scope.spawn(|| sim.vacate(&done)));
        program.run();
        done.store(true, Relaxed);
        if let Some(vacating) = vacating {
            vacating.join().unwrap();
        }
        if plan.detaches {
            detach(&sim.shared).unwrap();
        }
        sim.shared.stop.store(true, Relaxed);
        evictor.join().unwrap(); // it may wait for a message to be read
        sim.served.store(true, Relaxed);
    });
    sim.check();
    check::check_known(&sim.shared.lock(), &sim.world);
    sim.shared.close(0);
    if plan.detaches {
        program.verify(); // without anybody who would answer
    }
}

impl Simulation {
    fn check(&self) {
        let core = self.shared.lock();
        check::check(&core, &self.world);
        if let Some(address) = self.world.kernel().unexplained {
            let told = core.warnings.iter().any(|warning| warning == late::UNDECIDED);
            assert!(told, "SIGBUS at {address:#x} although no server did harm");
        }
    }

    fn inside(&self, memory: usize) -> Inside {
        let resident = Arc::new(SimInhabitant::new(&self.world, memory));
        let mut kernel = self.world.kernel();
        kernel.map(memory, staging());
        for (_, page) in kernel.memories[memory].pages.range_mut(staging()) {
            page.registered = true;
        }
        Inside { resident, uffd: 0, staging: STAGING, badge: BADGE }
    }

    fn attach(&self, memory: usize) {
        self.world.map(memory, BADGE..BADGE + PAGE);
        let mapping = SimMapping::new(&self.world, memory, self.world.fd());
        crate::kernel::Mapping::register(&mapping, BADGE, PAGE).unwrap();
        let space = keeper::new_space(Arc::new(mapping), memory as u32, self.inside(memory));
        self.shared.lock().space_add(space);
    }

    /// Empties one extent after the other.
    fn vacate(&self, done: &AtomicBool) {
        while !done.load(Relaxed) {
            self.pause(8);
            let chosen = {
                let _growing = self.shared.growing.lock().unwrap();
                let choice = self.world.below(100);
                self.rack.lock().unwrap().any_extent(choice)
            };
            let Some(slots) = chosen.filter(|_| self.world.chance(4)) else { continue };
            if vacate(&self.shared, std::slice::from_ref(&slots)).is_ok() {
                while !self.rack.lock().unwrap().shed(&slots) {
                    self.pause(8);
                }
            }
        }
    }

    /// The fault thread.
    fn serve(&self) {
        let mut server = Server::new(&self.shared, SimPort::new(&self.world, &self.rack));
        let (mut steps, mut rounds) = (0, 0);
        while !self.served.load(Relaxed) {
            let now = self.world.kernel().steps;
            (steps, rounds) = if now == steps { (steps, rounds + 1) } else { (now, 0) };
            assert!(
                rounds < ROUNDS_MAX,
                "nobody gets on: {}",
                check::waiters(&self.shared.lock(), &self.world)
            );
            let ready = self.ready();
            server.round(&ready, self.world.chance(2));
            server.children.clear();
            self.pause(8);
        }
    }

    /// Spaces with messages.
    fn ready(&self) -> Vec<SpaceId> {
        let core = self.shared.lock();
        let kernel = self.world.kernel();
        let has_news = |fd: i32| {
            let memory = &kernel.memories[kernel.by_fd[&fd]];
            !memory.changes.is_empty() || memory.waiters.iter().any(|waiter| !waiter.reported)
        };
        core.spaces()
            .filter(|(_, space)| has_news(space.uffd.as_fd().as_raw_fd()))
            .map(|(id, _)| id)
            .collect()
    }

    fn evict(&self, can_move: bool) {
        let port = SimPort::new(&self.world, &self.rack);
        let grow = Box::new(|| Ok(self.rack.lock().unwrap().grow()));
        let mut evictor = Evictor::new(&self.shared, port, grow, can_move);
        while !self.shared.stop.load(Relaxed) {
            evictor.step();
            self.pause(4);
        }
    }

    fn keep(&self) {
        while !self.shared.stop.load(Relaxed) {
            let spaces: Vec<(SpaceId, usize, bool, bool)> = {
                let core = self.shared.lock();
                let kernel = self.world.kernel();
                let memory = |fd: i32| kernel.by_fd[&fd];
                let ids: Vec<_> = core
                    .spaces()
                    .map(|(id, space)| (id, memory(space.uffd.as_fd().as_raw_fd()), space.inside.is_some()))
                    .collect();
                drop(kernel);
                ids.into_iter()
                    .map(|(id, memory, inside)| {
                        let dead = keeper::is_dead(core.space(id).unwrap());
                        (id, memory, inside, dead)
                    })
                    .collect()
            };
            for (id, memory, inside, dead) in spaces {
                if dead {
                    self.shared.close(id);
                } else if inside {
                    self.register(id, memory);
                } else if self.world.chance(3) {
                    self.enter(id, memory);
                }
            }
            self.pause(8);
        }
    }

    fn enter(&self, id: SpaceId, memory: usize) {
        if let Some(space) = self.shared.lock().space_mut(id) {
            space.pid = Some(memory as u32);
        }
        let alive = self.world.kernel().memories[memory].alive;
        if alive && self.world.chance(3) {
            keeper::entered(&self.shared, id, self.inside(memory));
            self.register(id, memory);
        }
    }

    fn register(&self, id: SpaceId, memory: usize) {
        if self.shared.detaching.load(Relaxed) {
            return;
        }
        let look = || {
            let kernel = self.world.kernel();
            let pages: Vec<(u64, u32)> = kernel.memories[memory]
                .pages
                .iter()
                .map(|(&address, page)| (address, page.mapping))
                .collect();
            let mappings: Vec<_> = pages
                .chunk_by(|a, b| (a.0 + PAGE, a.1) == *b)
                .map(|run| run[0].0..run[0].0 + run.len() as u64 * PAGE)
                .collect();
            Ok(match (mappings.first(), mappings.last()) {
                (Some(first), Some(last)) => {
                    vec![Span { range: first.start..last.end, mappings: mappings.clone() }]
                }
                _ => Vec::new(),
            })
        };
        let present = |address, count| Ok(self.world.kernel().present(memory, address, count));
        register::register(&self.shared, id, &look, &present);
    }

    /// Lets others go on, and now and then looks whether everything is in order.
    fn pause(&self, check_one_in: u64) {
        if self.world.chance(check_one_in) {
            self.check();
        }
        self.world.dawdle();
        shuttle::thread::yield_now();
    }
}

/// Runs one seed; `false` if it failed.
fn run(seed: u64) -> bool {
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    config.max_steps = MaxSteps::None;
    config.failure_persistence = FailurePersistence::None;
    config.silence_warnings = true;
    let runner = Runner::new(RandomScheduler::new_from_seed(seed, 1), config);
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runner.run(move || simulate(seed)))).is_ok()
}

#[test]
fn every_read_finds_what_was_written_last() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("RACKMEM_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("RACKMEM_SIM_FIRST").unwrap_or(0);
            first..first + number("RACKMEM_SIM_SEEDS").unwrap_or(SEEDS)
        }
    };
    for seed in seeds {
        assert!(run(seed), "seed {seed} failed: RACKMEM_SIM_SEED={seed} runs it alone");
    }
}
