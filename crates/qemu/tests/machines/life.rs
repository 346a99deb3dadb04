//! From start to end, and found again in between.

use std::path::Path;
use std::time::Duration;

use rackmem_qemu::{
    Accelerator, AcceleratorKind, DirectMachine, Ended, Event, Events, Machine, MachineConfig, Network,
    PROGRAM, QemuError, RunState, process,
};
use tokio::time::timeout;

use crate::guest::{PATIENCE, Place, config, qemu, start};

async fn hear(events: &mut Events, expect: impl Fn(&Event) -> bool) {
    let heard = timeout(PATIENCE, async {
        while let Some(event) = events.next().await {
            if expect(&event) {
                return;
            }
        }
        panic!("the driver has gone");
    });
    heard.await.expect("the event comes");
}

#[tokio::test]
async fn qemu_lives_from_prepared_to_switched_off() {
    let place = Place::new();
    let (machine, _reaper) = start(&config(), &place).await;
    let mut events = machine.events();
    assert_eq!(machine.state().await.unwrap(), RunState::Prepared);
    machine.resume().await.unwrap();
    hear(&mut events, |event| *event == Event::Resumed).await;
    place.probe().await;
    machine.resume().await.unwrap();
    assert_eq!(machine.state().await.unwrap(), RunState::Running);
    machine.pause().await.unwrap();
    machine.pause().await.unwrap();
    assert_eq!(machine.state().await.unwrap(), RunState::Paused);
    hear(&mut events, |event| *event == Event::Paused).await;
    machine.resume().await.unwrap();
    assert_eq!(machine.stop(PATIENCE).await.unwrap(), Ended::ByGuest);
    hear(&mut events, |event| matches!(event, Event::Shutdown { by_guest: true, .. })).await;
    hear(&mut events, |event| *event == Event::Ended).await;
    assert_eq!(machine.state().await.unwrap(), RunState::Off);
    assert_eq!(machine.stop(PATIENCE).await.unwrap(), Ended::WasOff);
    assert!(std::fs::read_to_string(place.files.console_log()).unwrap().contains("guest-probe: ready"));
}

#[tokio::test]
async fn qemu_outlives_its_starter_and_is_found_again() {
    let place = Place::new();
    assert!(DirectMachine::find("test-guest", &place.files).await.unwrap().is_none());
    let (machine, reaper) = start(&config(), &place).await;
    let again = qemu().await.start(&config(), &place.files).await.unwrap_err();
    assert!(matches!(again, QemuError::AlreadyRuns { pid, .. } if pid == reaper.0.pid), "{again}");
    drop(machine);
    let found = DirectMachine::find("test-guest", &place.files).await.unwrap().expect("it runs");
    assert_eq!(found.process().await.unwrap(), reaper.0);
    drop(found);
    // An agent that died before QEMU wrote its process id finds it all the same, once it has.
    let attached = DirectMachine::attach("test-guest", &place.files.qmp()).await.unwrap();
    assert_eq!(attached.process().await.unwrap(), reaper.0);
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", reaper.0.pid)).unwrap();
    let session = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap().to_owned();
    let own = std::fs::read_to_string("/proc/self/stat").unwrap();
    assert_ne!(own.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap(), session);
    assert_eq!(attached.stop(Duration::ZERO).await.unwrap(), Ended::Quit);
    assert!(DirectMachine::find("test-guest", &place.files).await.unwrap().is_none());
}

#[tokio::test]
async fn qemu_that_is_killed_is_off_and_says_so() {
    let place = Place::new();
    let (machine, reaper) = start(&config(), &place).await;
    let mut events = machine.events();
    assert_eq!(process::kill(reaper.0, Duration::ZERO).await.unwrap(), Ended::Killed);
    hear(&mut events, |event| *event == Event::Ended).await;
    assert_eq!(machine.state().await.unwrap(), RunState::Off);
    assert!(matches!(machine.resume().await, Err(QemuError::NotRunning(_))));
    assert!(matches!(machine.process().await, Err(QemuError::NotRunning(_))));
    // What it left behind is in nobody's way.
    let (machine, _reaper) = start(&config(), &place).await;
    assert_eq!(machine.stop(Duration::ZERO).await.unwrap(), Ended::Quit);
}

#[tokio::test]
async fn qemu_that_dies_at_its_start_has_its_last_words_shown() {
    let place = Place::new();
    let network = Network::Tap { interface: "no-such-tap0".to_owned(), mac: "not a mac".to_owned() };
    let broken = MachineConfig { network, ..config() };
    let error = qemu().await.start(&broken, &place.files).await.unwrap_err();
    assert!(matches!(&error, QemuError::Start { last_words } if last_words.contains("mac")), "{error}");
    let mut absent = config();
    absent.kernel.as_mut().unwrap().image = "/nonexistent/vmlinuz".into();
    let error = qemu().await.start(&absent, &place.files).await.unwrap_err().to_string();
    assert!(error.contains("the kernel /nonexistent/vmlinuz cannot be read"), "{error}");
}

#[tokio::test]
async fn qemu_whose_monitor_is_in_other_hands_says_so() {
    let place = Place::new();
    let (machine, _reaper) = start(&config(), &place).await;
    let error = DirectMachine::attach("test-guest", &place.files.qmp()).await.unwrap_err();
    assert!(matches!(error, QemuError::MonitorBusy { .. }), "{error}");
    assert_eq!(machine.state().await.unwrap(), RunState::Prepared);
}

#[tokio::test]
async fn qemu_runs_in_its_sandbox() {
    let place = Place::new();
    let (machine, reaper) = start(&MachineConfig { sandbox: true, ..config() }, &place).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", reaper.0.pid)).unwrap();
    assert!(status.contains("Seccomp:\t2"), "{status}");
    assert_eq!(machine.stop(Duration::ZERO).await.unwrap(), Ended::Quit);
}

#[tokio::test]
async fn qemu_accelerator_is_chosen_with_a_reason() {
    let program = Path::new(PROGRAM);
    let capabilities = qemu().await.capabilities;
    let chosen = Accelerator::choose(program, &capabilities).await.unwrap();
    println!("{chosen:?}");
    let opens = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    assert!(opens || chosen.kind == AcceleratorKind::Tcg, "{chosen:?}");
    assert!(chosen.reason.len() > 10);
}
