//! The section `storage` alone, for a cluster that is there and moves.

use super::{Dialogue, DialogueError, Lacking, Means, Missing, OF_JOIN, build};
use crate::deploy::answers::{self, Answers, Value};
use crate::deploy::preview::Row;
use crate::deploy::questions::{self, Cluster, Known, Look, Question, Section, keys};
use crate::deploy::{DeployArgs, Family, Secrets, Storage};

/// The storage of a cluster that is there: a new one for it, or the one where it is (`args.join`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewStorage {
    /// Where it is.
    pub storage: Storage,
    /// The storage domain's name.
    pub domain_name: String,
    /// Passwords.
    pub secrets: Secrets,
    /// All answers but the passwords.
    pub answers: Answers,
    /// What [`crate::deploy::preview`] shows.
    pub preview: Vec<Row>,
    /// The cluster that was found there, of [`DeployArgs::join`].
    pub cluster: Option<Cluster>,
    /// The preview is confirmed already, by `--yes` or an answer.
    pub is_confirmed: bool,
}

/// The questions about storage alone. `presets` are answers that files need not give.
///
/// # Errors
/// As [`super::request`]; also where new storage carries a hosted engine.
pub fn storage(
    args: &DeployArgs,
    presets: &[(&'static str, Value)],
    means: Means<'_>,
) -> Result<NewStorage, DialogueError> {
    let given = answers::load(&args.config_append)?;
    for warning in &given.warnings {
        means.report.warning(warning);
    }
    let mut loaded = given.answers;
    loaded.remove(keys::JOIN);
    if args.join.is_some() {
        for key in OF_JOIN {
            loaded.remove(key);
        }
    }
    for (key, value) in presets {
        loaded.set(*key, value.clone());
    }
    let mut known = Known::begin(means.paths, means.lookups, args.join.clone(), Family::Auto);
    let mut dialogue = Dialogue {
        loaded,
        join_holds: args.join.is_some(),
        storage: means.storage,
        asker: means.asker,
        report: means.report,
        with_secrets: true,
        section: None,
        lacking: Lacking::default(),
    };
    let is_asked =
        |question: &&Question| question.section == Section::Storage && question.key != keys::DATACENTER;
    // Without --join there is nothing to join: what is on the storage is looked at below.
    let is_join = |question: &&Question| args.join.is_some() || question.key != keys::JOIN;
    let all: Vec<_> = questions::all().filter(is_asked).filter(is_join).collect();
    dialogue.all_of(&all, &mut known)?;
    let is_confirmed = args.yes || dialogue.is_confirmed()?;
    if dialogue.asker.is_none() && !is_confirmed && !args.plan {
        dialogue.lacking.missing.push(Missing::CONFIRMATION);
    }
    dialogue.lacking.check()?;
    if args.join.is_none() {
        dialogue.look(Look::Clusters, &mut known)?;
        let all: Vec<_> = known.found.clusters.iter().map(|cluster| cluster.fqdn.as_str()).collect();
        if !all.is_empty() {
            return Err(DialogueError::Storage(format!(
                "{} is on this storage already: a hosted engine moves to storage without one",
                all.join(", ")
            )));
        }
    }
    let (answers, preview) = dialogue.said(&known);
    Ok(NewStorage {
        storage: build::storage(&known)?,
        domain_name: known.get(keys::DOMAIN_NAME).unwrap_or_default().to_owned(),
        secrets: build::secrets(&known),
        answers,
        preview,
        cluster: known.cluster().cloned(),
        is_confirmed,
    })
}
