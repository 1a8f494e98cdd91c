//! Waiting for the engine with a scripted VM and page, in virtual time.

use std::sync::Mutex;

use super::*;
use crate::deploy::Boot;
use crate::deploy::testing::Recorded;
use crate::deploy::vm::scripted::{Says, Script, crashed, orderly};
use crate::deploy::vm::testing::Bench;

/// Fails so often, then is good.
struct Page(Mutex<u32>);

#[async_trait]
impl HealthPage for Page {
    async fn look(&self) -> Result<(), String> {
        let mut left = self.0.lock().unwrap();
        if *left == 0 {
            return Ok(());
        }
        *left -= 1;
        Err("http://engine.example.com/ cannot be read: Connection refused".to_owned())
    }
}

/// Waits, and gives what came of it with what was said.
async fn wait(script: &Script, page: Page, says: &Says) -> (Result<(), String>, Vec<String>) {
    let bench = Bench::new(Boot::Disk(None));
    bench.configure();
    let (opener, tools) = (script.opener(), Recorded::new(&[]));
    let Request::FirstHost(first) = &bench.request else { panic!() };
    let directory = first_start::directory(&bench.paths, first.ids.deploy);
    let step = AwaitEngine::new(Box::new(says.clone()));
    let ended = step.wait(&bench.world(&tools, &opener), first, &directory, &page).await;
    (ended.map_err(|error| error.to_string()), bench.report.all())
}

fn up() -> Script {
    Script::default().with(|life| life.activity = engine_vm::VmActivity::Up)
}

#[tokio::test(start_paused = true)]
async fn reasons_are_said_once_and_the_engines_answer_ends_the_wait() {
    let (ended, said) = wait(&up(), Page(Mutex::new(10)), &Says::nothing()).await;
    ended.unwrap();
    assert_eq!(said.iter().filter(|line| line.contains("Connection refused")).count(), 1);
    assert!(said.last().unwrap().starts_with("The engine answers after "), "{said:?}");
    assert!(!said.iter().any(|line| line.contains("takes long")));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever_and_somebody_may() {
    let (ended, said) = wait(&up(), Page(Mutex::new(u32::MAX)), &Says::nothing()).await;
    let error = ended.unwrap_err();
    assert!(error.contains("within 60 min") && error.contains("Connection refused"), "{error}");
    assert_eq!(said.iter().filter(|line| line.contains("This takes long")).count(), 1);
    // More than two hours of looks.
    let (ended, _) = wait(&up(), Page(Mutex::new(2000)), &Says::lines(&[])).await;
    ended.unwrap();
    let (says, script) = (Says::lines(&["m", "1", "2"]), up());
    let (ended, _) = wait(&script, Page(Mutex::new(2000)), &says).await;
    assert_eq!(script.calls(), ["password of 8 for 120 s"]);
    assert!(ended.unwrap_err().contains("stopped by the operator"));
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_ends_is_started_again_some_times() {
    let script = up().with(|life| life.ends.extend([Some(orderly()), Some(crashed()), None]));
    let (ended, said) = wait(&script, Page(Mutex::new(3)), &Says::nothing()).await;
    ended.unwrap();
    assert_eq!(script.calls(), ["start from disk", "start from disk"]);
    assert!(said.iter().any(|line| line.contains("signal 9; starting it again (2 of 3)")), "{said:?}");

    let script = up().with(|life| life.ends.extend(std::iter::repeat_n(Some(crashed()), 9)));
    let (ended, _) = wait(&script, Page(Mutex::new(u32::MAX)), &Says::nothing()).await;
    let error = ended.unwrap_err();
    assert!(error.contains("started again 3 times") && error.contains("engine.example.com"), "{error}");

    // The operator is asked.
    let (ended, _) = wait(&Script::default(), Page(Mutex::new(2)), &Says::lines(&["x", "1"])).await;
    ended.unwrap();
    let (ended, _) = wait(&Script::default(), Page(Mutex::new(2)), &Says::lines(&["2"])).await;
    assert!(ended.unwrap_err().contains("--undo"));
}

#[tokio::test(start_paused = true)]
async fn a_paused_vm_is_the_reason() {
    let script = Script::default().with(|life| life.activity = engine_vm::VmActivity::PausedByIoError);
    let (ended, said) = wait(&script, Page(Mutex::new(0)), &Says::nothing()).await;
    assert!(ended.unwrap_err().contains("disk could not be read"));
    assert!(said.iter().any(|line| line.contains("disk could not be read")));
}
