use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::deploy::job_tests::request;
use crate::deploy::made::MadeDirectory;

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deploy.journal");
    (dir, path)
}

fn thing(name: &str) -> Made {
    MadeDirectory { path: name.into() }.into()
}

/// Two steps, the second one cut.
fn sample(path: &Path) -> Journal {
    let mut journal = Journal::begin(path, 7, request()).unwrap();
    journal.begin_step(StepId::Directories).unwrap();
    let number = journal.will(thing("/a")).unwrap();
    journal.did(number).unwrap();
    journal.end_step(StepId::Directories).unwrap();
    journal.begin_step(StepId::Leases).unwrap();
    journal.will(thing("/b")).unwrap();
    journal
}

#[test]
fn what_was_written_is_read() {
    let (_dir, path) = place();
    let written = sample(&path).story().clone();
    assert_eq!(Journal::read(&path).unwrap().unwrap(), written);
    assert_eq!((written.at, written.cut, written.outcome), (7, Some(StepId::Leases), None));
    assert_eq!(written.left().map(|item| item.number).collect::<Vec<_>>(), [1, 0]);
    let journal = Journal::open(&path).unwrap().unwrap();
    assert_eq!(journal.story(), &written);
}

/// Between its beginning and its exec a program shares all open files of who starts it, with their locks.
#[test]
fn a_look_leaves_no_lock_to_programs_that_are_started_meanwhile() {
    let (_dir, path) = place();
    drop(sample(&path));
    let starts = std::thread::spawn(|| {
        for _ in 0..100 {
            assert!(std::process::Command::new("true").status().unwrap().success());
        }
    });
    while !starts.is_finished() {
        assert!(!Journal::is_worked_on(&path).unwrap());
        drop(Journal::open(&path).unwrap().unwrap());
    }
    starts.join().unwrap();
}

#[test]
fn taking_back_a_part_reopens_the_step_and_all_later_ones() {
    let (_dir, path) = place();
    let mut journal = sample(&path);
    journal.end_step(StepId::Leases).unwrap();
    journal.begin_step(StepId::EngineAnswers).unwrap();
    journal.end_step(StepId::EngineAnswers).unwrap();
    journal.undoing(1).unwrap();
    assert_eq!(journal.story().left_of_incomplete().count(), 1);
    journal.undone(1, Undone::TakenBack).unwrap();
    assert_eq!(journal.story().ended, BTreeSet::from([StepId::Directories]));
    assert_eq!(journal.story().left_of_incomplete().count(), 0);
    drop(journal);
    let story = Journal::read(&path).unwrap().unwrap();
    assert_eq!(story.ended, BTreeSet::from([StepId::Directories]));
}

#[test]
fn one_works_on_it_at_a_time() {
    let (_dir, path) = place();
    let journal = sample(&path);
    assert!(Journal::is_worked_on(&path).unwrap());
    for error in [Journal::open(&path).unwrap_err(), Journal::begin(&path, 8, request()).unwrap_err()] {
        assert!(error.to_string().contains("works on the deployment of this host now"), "{error}");
    }
    drop(journal);
    assert!(!Journal::is_worked_on(&path).unwrap());
    let error = Journal::begin(&path, 8, request()).unwrap_err().to_string();
    assert!(error.contains("--resume") && error.contains("--undo"), "{error}");
    Journal::open(&path).unwrap().unwrap().over(Outcome::Undone).unwrap();
    assert_eq!(Journal::begin(&path, 8, request()).unwrap().story().at, 8);
    assert!(path.with_extension("journal.old").exists());
}

#[test]
fn one_that_was_cut_before_its_first_line_is_none() {
    let (_dir, path) = place();
    for text in ["", "{\"deploy\":{\"form\""] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(Journal::read(&path).unwrap(), None);
        assert!(Journal::open(&path).unwrap().is_none());
        assert_eq!(Journal::begin(&path, 9, request()).unwrap().story().at, 9);
    }
}

#[test]
fn a_line_that_makes_no_sense_is_named() {
    let (_dir, path) = place();
    drop(sample(&path));
    let good = std::fs::read_to_string(&path).unwrap();
    for (line, why) in [
        ("{\"did\":2}", "an unknown number"),
        ("{\"will\":{\"number\":9,\"made\":{\"directory\":{\"path\":\"/c\"}}}}", "do not follow"),
        ("{\"end\":\"firewall\"}", "not begun"),
        ("nonsense", "expected"),
        ("{\"over\":\"undone\"}\n{\"did\":1}", "follows the end"),
    ] {
        let text = format!("{good}{line}\n");
        std::fs::write(&path, &text).unwrap();
        let error = Journal::read(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("line {}", text.lines().count())) && error.contains(why), "{error}");
    }
    std::fs::write(&path, format!("{{\"did\":1}}\n{good}")).unwrap();
    assert!(Journal::read(&path).unwrap_err().to_string().contains("does not begin with"));
    std::fs::write(&path, good.replace("\"form\":1", "\"form\":2")).unwrap();
    assert!(Journal::read(&path).unwrap_err().to_string().contains("another release"));
}

#[test]
fn a_watcher_is_told_before_and_after_and_can_stop_it() {
    let (_dir, path) = place();
    let mut journal = sample(&path);
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    journal.watch(Box::new(move |moment, line| {
        heard.lock().unwrap().push((moment, line.to_owned()));
        if moment == Moment::After { Ok(()) } else { Err(DeployError::Refused("stop".to_owned())) }
    }));
    assert!(journal.did(1).is_err());
    assert_eq!(*told.lock().unwrap(), [(Moment::Before, "{\"did\":1}\n".to_owned())]);
    drop(journal);
    assert!(!Journal::read(&path).unwrap().unwrap().items[1].is_done);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_prefix_is_readable_and_can_be_gone_on_with(share in 0.0_f64..=1.0) {
        let (_dir, path) = place();
        drop(sample(&path));
        let bytes = std::fs::read(&path).unwrap();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place")]
        let cut = (bytes.len() as f64 * share) as usize;
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let is_whole = bytes[..cut].contains(&b'\n');
        prop_assert_eq!(Journal::read(&path).unwrap().is_some(), is_whole);
        if let Some(mut journal) = Journal::open(&path).unwrap() {
            journal.begin_step(StepId::Firewall).unwrap();
            drop(journal);
            prop_assert_eq!(Journal::read(&path).unwrap().unwrap().cut, Some(StepId::Firewall));
        }
    }

    #[test]
    fn any_wrong_byte_is_read_or_its_line_is_named(at in 0_usize..4000, byte: u8) {
        let (_dir, path) = place();
        drop(sample(&path));
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at % bytes.len();
        bytes[at] = byte;
        std::fs::write(&path, &bytes).unwrap();
        if let Err(error) = Journal::read(&path) {
            prop_assert!(matches!(error, DeployError::Journal { line, .. } if line > 0), "{}", error);
        }
    }
}

#[test]
fn only_a_complete_deployment_is_opened_to_take_the_host_out() {
    let (_dir, path) = place();
    let mut journal = sample(&path);
    assert!(journal.undeploy(8).unwrap_err().to_string().contains("was not deployed"));
    journal.end_step(StepId::Leases).unwrap();
    journal.over(Outcome::Deployed).unwrap();
    drop(journal);
    let mut journal = Journal::open(&path).unwrap().unwrap();
    let lines = || std::fs::read_to_string(&path).unwrap().lines().count();
    let before = lines();
    journal.undeploy(8).unwrap();
    journal.undeploy(9).unwrap();
    assert_eq!(lines(), before + 1);
    assert_eq!((journal.story().is_undeploying, journal.story().outcome), (true, None));
    journal.undoing(1).unwrap();
    journal.undone(1, Undone::TakenBack).unwrap();
    journal.over(Outcome::Undone).unwrap();
    assert_eq!(Journal::read(&path).unwrap().unwrap(), *journal.story());
}
