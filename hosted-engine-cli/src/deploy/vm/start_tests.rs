//! First starts with a scripted VM.

use super::*;
use crate::deploy::testing::Recorded;
use crate::deploy::vm::scripted::{Says, Script, crashed, orderly};
use crate::deploy::vm::testing::Bench;
use crate::deploy::{Journal, undo};

fn bench(boot: Boot) -> Bench {
    let bench = Bench::new(boot);
    bench.configure();
    bench
}

fn cdrom() -> Bench {
    bench(Boot::Cdrom("/iso/os.iso".into()))
}

fn run(bench: &Bench, script: &Script, says: &Says) -> Result<(), String> {
    let step = Box::new(StartEngineVm::new(Box::new(says.clone())));
    bench.run(step, &Recorded::new(&[]), &script.opener()).map_err(|error| error.to_string())
}

const MEDIA: &str = "start from media os.iso";
const DISK: &str = "start from disk";
const PASSWORD: &str = "password of 8 for 120 s";

#[test]
fn a_vm_with_an_image_starts_from_its_disk_under_its_lease() {
    let (bench, script) = (bench(Boot::Disk(None)), Script::default());
    run(&bench, &script, &Says::nothing()).unwrap();
    assert_eq!(script.calls(), [DISK]);
    let script = Script::default().with(|life| life.held_elsewhere = true);
    let error = run(&bench, &script, &Says::nothing()).unwrap_err();
    assert!(error.contains("host with id 2") && script.calls().is_empty(), "{error}");
}

#[test]
fn an_installation_that_ends_leads_to_the_disk() {
    let (bench, script) = (cdrom(), Script::default().with(|life| life.ends.extend([Some(orderly()), None])));
    run(&bench, &script, &Says::nothing()).unwrap();
    assert_eq!(script.calls(), [MEDIA, DISK]);
}

#[test]
fn the_operator_sees_the_console_once_and_no_log_does() {
    let (bench, script) = (bench(Boot::Disk(None)), Script::default());
    let says = Says::lines(&["unused"]);
    run(&bench, &script, &says).unwrap();
    assert_eq!(script.calls(), [DISK, PASSWORD]);
    let shown = says.shown.lock().unwrap().join("\n");
    let password = shown.split("the password ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    assert!(shown.contains("VNC at 127.0.0.1:5900") && password.len() == 8, "{shown}");
    assert!(!bench.report.all().join("\n").contains(&password));
    assert!(!std::fs::read_to_string(bench.journal()).unwrap().contains(&password));
}

#[test]
fn the_operator_restarts_continues_and_aborts() {
    // Nonsense, a new password, again from the media, complete.
    let (bench, script) = (cdrom(), Script::default());
    run(&bench, &script, &Says::lines(&["x", "3", "2", "1"])).unwrap();
    assert_eq!(
        script.calls(),
        [MEDIA, PASSWORD, PASSWORD, "destroy", MEDIA, PASSWORD, "shutdown", DISK, PASSWORD]
    );

    let (bench, script) = (cdrom(), Script::default());
    let error = run(&bench, &script, &Says::lines(&["4"])).unwrap_err();
    assert!(error.contains("--resume") && error.contains("--undo"), "{error}");
    // The VM goes on; a second try adopts it and finds the end of the installation.
    let script = script.with(|life| life.ends.extend([Some(orderly()), None]));
    run(&bench, &script, &Says::nothing()).unwrap();
    assert_eq!(script.calls(), [MEDIA, PASSWORD, DISK]);
    assert!(bench.report.all().iter().any(|line| line.contains("there already (Up): going on")));
}

#[test]
fn a_vm_that_crashes_is_shown_with_its_reason() {
    let (bench, script) = (cdrom(), Script::default().with(|life| life.ends.push_back(Some(crashed()))));
    let error = run(&bench, &script, &Says::nothing()).unwrap_err();
    assert!(error.contains("it crashed: signal 9") && error.contains("--resume"), "{error}");

    let (bench, script) =
        (cdrom(), Script::default().with(|life| life.ends.extend([Some(crashed()), Some(orderly()), None])));
    // The menu of the dead VM takes the line: the first look is at once, the second one after a second.
    run(&bench, &script, &Says::slowly(&["2"], Duration::from_millis(1500))).unwrap();
    let starts: Vec<_> = script.calls().into_iter().filter(|call| call.starts_with("start")).collect();
    assert_eq!(starts, [MEDIA, MEDIA, DISK]);
}

#[test]
fn a_cut_after_the_installation_does_not_install_again() {
    let (bench, script) = (cdrom(), Script::default().with(|life| life.ends.extend([Some(orderly())])));
    // Cut at the second start.
    let refused = Script(script.0.clone()).with(|life| life.ends.push_back(None));
    run(&bench, &refused, &Says::nothing()).unwrap();
    let Request::FirstHost(first) = &bench.request else { panic!() };
    let directory = first_start::directory(&bench.paths, first.ids.deploy);
    assert_eq!(first_start::stage(&directory).unwrap(), Some(Stage::Disk));
    let down = Script::default();
    run(&bench, &down, &Says::nothing()).unwrap();
    assert_eq!(down.calls(), [DISK]);
}

#[test]
fn undoing_powers_off_this_vm_and_no_other() {
    let (bench, script) = (bench(Boot::Disk(None)), Script::default());
    run(&bench, &script, &Says::lines(&[])).unwrap();
    let Request::FirstHost(first) = &bench.request else { panic!() };
    let directory = first_start::directory(&bench.paths, first.ids.deploy);
    let opener = script.opener();
    let tools = Recorded::new(&[]);
    let world = bench.world(&tools, &opener);
    let again = || {
        let path = bench.path("undo-journal");
        let _ = std::fs::remove_file(&path);
        let mut journal = Journal::begin(&path, 0, bench.request.clone()).unwrap();
        journal.begin_step(StepId::EngineVm).unwrap();
        journal.will(MadeVm { vm: first.ids.vm, directory: directory.clone() }.into()).unwrap();
        undo(world, &mut journal).unwrap();
    };
    let conf = std::fs::read_to_string(bench.paths.hosted_engine_conf()).unwrap();
    let other = conf.replace(&first.ids.vm.to_string(), "00000000-0000-4000-8000-000000000001");
    std::fs::write(bench.paths.hosted_engine_conf(), other).unwrap();
    again();
    assert!(!script.calls().contains(&"destroy".to_owned()));
    assert!(bench.report.all().iter().any(|line| line.starts_with("! Left alone: engine VM")));
    std::fs::write(bench.paths.hosted_engine_conf(), conf).unwrap();
    again();
    assert!(script.calls().contains(&"destroy".to_owned()) && !directory.exists());
    again();
}
