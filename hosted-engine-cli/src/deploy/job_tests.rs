//! Steps that make real directories and files, stopped before or after any line of the journal, gone on with or undone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ha_config::Paths;
use proptest::prelude::*;

use super::journal::Moment;
use super::made::{ChangedFile, MadeDirectory, MadeFile};
use super::services::{ServiceState, Services};
use super::storage::testing::first_host;
use super::testing::{Heard, Recorded};
use super::{
    DeployError, FirstHost, HostIdentity, Job, Journal, Outcome, Request, Secrets, Step, StepId, StorageKind,
    World, run, undo,
};

/// A first host with a directory.
pub(crate) fn request() -> Request {
    Request::FirstHost(Box::new(FirstHost {
        host: HostIdentity { id: 1, name: "h1.example.com".to_owned() },
        ha_toml: String::new(),
        ..first_host(StorageKind::Directory, "/srv/engine")
    }))
}

/// A service manager that knows no service.
pub(crate) struct NoServices;

impl Services for NoServices {
    fn state(&self, _: &str) -> Result<Option<ServiceState>, DeployError> {
        Ok(None)
    }

    fn set(&self, service: &str, _: ServiceState) -> Result<(), DeployError> {
        Err(DeployError::Refused(format!("{service} is unknown")))
    }

    fn restart(&self, service: &str) -> Result<(), DeployError> {
        Err(DeployError::Refused(format!("{service} is unknown")))
    }
}

/// Makes a directory with two files in it, changes a file that is there.
struct Toy(StepId, &'static str);

impl Step for Toy {
    fn id(&self) -> StepId {
        self.0
    }

    fn title(&self) -> String {
        format!("Making {}", self.1)
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let path = job.world.paths.root().join(self.1);
        job.make(MadeDirectory { path: path.clone() }, |_| {
            std::fs::create_dir(&path).map_err(DeployError::io("make", &path))
        })?;
        for name in ["x", "y"] {
            let path = path.join(name);
            job.make(MadeFile { path: path.clone(), content: Some(name.to_owned()) }, |_| {
                // Never over what is there.
                assert!(!path.exists(), "{}", path.display());
                std::fs::write(&path, name).map_err(DeployError::io("write", &path))
            })?;
        }
        let path = job.world.paths.root().join("shared");
        let before = std::fs::read_to_string(&path).map_err(DeployError::io("read", &path))?;
        let after = format!("{before}{}\n", self.1);
        job.make(ChangedFile { path: path.clone(), before, after: after.clone() }, |_| {
            std::fs::write(&path, after).map_err(DeployError::io("write", &path))
        })
    }
}

/// Makes nothing, like a step that waits.
struct Waits;

impl Step for Waits {
    fn id(&self) -> StepId {
        StepId::EngineAnswers
    }

    fn title(&self) -> String {
        "Waiting".to_owned()
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let path = job.world.paths.root().join("b/y");
        std::fs::read(&path).map(drop).map_err(DeployError::io("see", &path))
    }
}

fn steps() -> Vec<Box<dyn Step>> {
    vec![
        Box::new(Toy(StepId::Directories, "a")),
        Box::new(Toy(StepId::Leases, "b")),
        Box::new(Waits),
        Box::new(Toy(StepId::HandOver, "c")),
    ]
}

struct Stage {
    dir: tempfile::TempDir,
    paths: Paths,
    request: Request,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("shared"), "before\n").unwrap();
        Self { paths: Paths::new(dir.path()), dir, request: request() }
    }

    fn journal(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    /// What is there, but the journal.
    fn tree(&self) -> BTreeMap<PathBuf, Option<String>> {
        fn walk(at: &Path, all: &mut BTreeMap<PathBuf, Option<String>>) {
            for entry in std::fs::read_dir(at).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, all);
                    all.insert(path, None);
                } else if !path.ends_with("journal") {
                    all.insert(path.clone(), Some(std::fs::read_to_string(&path).unwrap()));
                }
            }
        }
        let mut all = BTreeMap::new();
        walk(self.dir.path(), &mut all);
        let root = self.dir.path();
        all.into_iter().map(|(path, text)| (path.strip_prefix(root).unwrap().to_owned(), text)).collect()
    }

    /// Goes on, or undoes, until it is over or `moments` have passed.
    fn attempt(&self, undoes: bool, moments: Option<u32>) -> Result<(), DeployError> {
        let heard = Heard::default();
        let (tools, secrets) = (Recorded::new(&[]), Secrets::default());
        let open_vm = |_: &_| Err(anyhow::anyhow!("there is no VM"));
        let world = World {
            paths: &self.paths,
            tools: &tools,
            report: &heard,
            secrets: &secrets,
            request: &self.request,
            services: &NoServices,
            open_vm: &open_vm,
        };
        let mut journal = match Journal::open(&self.journal())? {
            Some(journal) => journal,
            None => Journal::begin(&self.journal(), 0, self.request.clone())?,
        };
        if journal.story().outcome.is_some() {
            return Ok(());
        }
        if let Some(mut left) = moments {
            journal.watch(Box::new(move |_: Moment, _: &str| {
                left = left.checked_sub(1).ok_or_else(|| DeployError::Refused("cut".to_owned()))?;
                Ok(())
            }));
        }
        if undoes { undo(world, &mut journal) } else { run(&steps(), world, &mut journal) }
    }
}

/// How many moments a whole run has.
fn length() -> u32 {
    (1..1000).find(|count| Stage::new().attempt(false, Some(*count)).is_ok()).expect("a run ends")
}

#[test]
fn cut_at_every_moment_it_is_gone_on_with_and_undone() {
    let whole = Stage::new();
    let before = whole.tree();
    whole.attempt(false, None).unwrap();
    let after = whole.tree();
    assert_eq!(after.len(), 1 + 3 * 3);
    let length = length();
    for moments in 0..length {
        let stage = Stage::new();
        stage.attempt(false, Some(moments)).unwrap_err();
        stage.attempt(false, None).unwrap();
        assert_eq!(stage.tree(), after, "gone on with after {moments}");

        let stage = Stage::new();
        stage.attempt(false, Some(moments)).unwrap_err();
        stage.attempt(true, None).unwrap();
        let outcome = Journal::read(&stage.journal()).unwrap().unwrap().outcome;
        // The last line of all may be there.
        let expected = if outcome == Some(Outcome::Deployed) { &after } else { &before };
        assert_eq!(&stage.tree(), expected, "undone after {moments}");
        assert!(outcome == Some(Outcome::Undone) || moments + 1 == length, "{outcome:?}");
    }
}

/// Something may be taken back, and the line that says so not written: its step must count as open by then.
#[test]
fn undoing_that_is_cut_at_any_moment_can_be_turned_round() {
    let whole = Stage::new();
    whole.attempt(false, None).unwrap();
    let after = whole.tree();
    for moments in 0.. {
        let stage = Stage::new();
        stage.attempt(false, Some(40)).unwrap_err();
        if stage.attempt(true, Some(moments)).is_ok() {
            assert!(moments > 10, "nothing was undone");
            break;
        }
        // The last line of all may be there.
        if Journal::read(&stage.journal()).unwrap().unwrap().outcome.is_none() {
            stage.attempt(false, None).unwrap();
            assert_eq!(stage.tree(), after, "undoing cut after {moments}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Undoing can be cut too, gone on with, or turned round.
    #[test]
    fn however_often_it_is_cut_it_ends_whole(cuts in prop::collection::vec((any::<bool>(), 0_u32..50), 0..6), undoes: bool) {
        let whole = Stage::new();
        let before = whole.tree();
        whole.attempt(false, None).unwrap();
        let after = whole.tree();
        let stage = Stage::new();
        for (undoes, moments) in cuts {
            let _ = stage.attempt(undoes, Some(moments));
        }
        stage.attempt(undoes, None).unwrap();
        let outcome = Journal::read(&stage.journal()).unwrap().unwrap().outcome;
        prop_assert_eq!(stage.tree(), if outcome == Some(Outcome::Deployed) { after } else { before });
    }
}
