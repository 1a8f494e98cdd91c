//! From answers to a [`Request`]: answer files first, then questions on the terminal for what they do not say.
//!
//! ```text
//!  --config-append ─▶ Answers ──┐                              ┌─▶ Request   what is to be done
//!                               ├─▶ each Question in turn ─────┼─▶ Secrets   passwords
//!  Lookups: host, storage ──────┤     asked? else proposed     ├─▶ Answers   for answers.conf, --generate-answer
//!  Asker: the terminal ─────────┘                              └─▶ preview
//! ```
//!
//! Without a terminal what is proposed is taken; what nobody can propose is missing, and all that is missing or wrong
//! is reported at once. Nothing is made or changed here.

mod ask;
#[cfg(test)]
mod block_tests;
mod build;
mod error;
mod host;
mod links;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod pty_tests;
mod storage;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

use ha_config::{Paths, Secret};

use super::answers::{self, Answers, Value};
use super::preview::Row;
use super::questions::{
    self, Choice, Cluster, Form, Found, Known, Look, Lookups, Question, Section, StorageLookups, keys,
};
use super::{DeployArgs, Family, Lun, Request, Secrets};
use crate::setup::Report;

pub use ask::{Asker, AtTerminal};
pub use error::{DialogueError, Missing};
pub use host::ThisHost;
pub use storage::{NewStorage, storage};

/// What the dialogue works with.
pub struct Means<'a> {
    /// This host's places.
    pub paths: &'a Paths,
    /// The host.
    pub lookups: &'a dyn Lookups,
    /// The storage.
    pub storage: &'a dyn StorageLookups,
    /// The operator; `None` without a terminal.
    pub asker: Option<&'a mut dyn Asker>,
    /// For warnings.
    pub report: &'a dyn Report,
}

/// What came out of the dialogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// What is to be done.
    pub request: Request,
    /// Passwords.
    pub secrets: Secrets,
    /// All answers but the passwords: another deployment with them does the same. What differs from host to host is in
    /// them only where it is not what would be proposed.
    pub answers: Answers,
    /// What [`super::preview`] shows.
    pub preview: Vec<Row>,
    /// The cluster that a further host joins.
    pub cluster: Option<Cluster>,
    /// The host's number is the one that was proposed, and nobody asked for just this one.
    pub id_is_proposed: bool,
    /// The preview is confirmed already, by `--yes` or an answer.
    pub is_confirmed: bool,
}

/// Finds the answer to every question that has to be asked.
///
/// # Errors
/// Of the answer files; [`DialogueError::Incomplete`] without a terminal; what the operator cancelled.
pub fn request(args: &DeployArgs, means: Means<'_>) -> Result<Asked, DialogueError> {
    let loaded = answers::load(&args.config_append)?;
    for warning in &loaded.warnings {
        means.report.warning(warning);
    }
    let family = match (args.ipv4, args.ipv6) {
        (true, _) => Family::V4,
        (false, true) => Family::V6,
        (false, false) => Family::Auto,
    };
    let mut known = Known::begin(means.paths, means.lookups, args.join.clone(), family);
    // For the proposals: --4 and --6 are answers too, to be found in answers.conf.
    let mut loaded = loaded.answers;
    match family {
        Family::V4 => loaded.set(keys::FORCE_IPV4, Value::Bool(true)),
        Family::V6 => loaded.set(keys::FORCE_IPV6, Value::Bool(true)),
        Family::Auto => {}
    }
    if args.join.is_some() {
        // The command line wins over files.
        for key in OF_JOIN {
            loaded.remove(key);
        }
    }
    let mut dialogue = Dialogue {
        loaded,
        join_holds: args.join.is_some(),
        storage: means.storage,
        asker: means.asker,
        report: means.report,
        with_secrets: args.generate_answer.is_none(),
        section: None,
        lacking: Lacking::default(),
    };
    dialogue.all(&mut known)?;
    let is_confirmed = args.yes || dialogue.is_confirmed()?;
    let needs_confirmation = !args.plan && args.generate_answer.is_none();
    if dialogue.asker.is_none() && !is_confirmed && needs_confirmation {
        dialogue.lacking.missing.push(Missing::CONFIRMATION);
    }
    dialogue.lacking.check()?;
    dialogue.finish(&known, is_confirmed)
}

/// What keeps a dialogue without a terminal from its end.
#[derive(Debug, Default)]
struct Lacking {
    missing: Vec<Missing>,
    wrong: Vec<String>,
}

impl Lacking {
    fn check(&mut self) -> Result<(), DialogueError> {
        if self.missing.is_empty() && self.wrong.is_empty() {
            return Ok(());
        }
        Err(DialogueError::Incomplete {
            missing: std::mem::take(&mut self.missing),
            wrong: std::mem::take(&mut self.wrong),
        })
    }
}

/// What `--join` answers.
const OF_JOIN: [&str; 3] = [keys::CONNECTION, keys::PORTALS, keys::PORTS];

struct Dialogue<'a> {
    loaded: Answers,
    /// What `--join` said need not be asked: its storage has not turned out to be wrong.
    join_holds: bool,
    storage: &'a dyn StorageLookups,
    asker: Option<&'a mut dyn Asker>,
    report: &'a dyn Report,
    with_secrets: bool,
    section: Option<Section>,
    lacking: Lacking,
}

/// Which question comes next.
enum Next {
    Following,
    /// The storage cannot be what was answered: ask for it again.
    StorageAgain,
}

impl Dialogue<'_> {
    fn all(&mut self, known: &mut Known<'_>) -> Result<(), DialogueError> {
        self.all_of(&questions::all().collect::<Vec<_>>(), known)
    }

    fn all_of(&mut self, all: &[&'static Question], known: &mut Known<'_>) -> Result<(), DialogueError> {
        let mut index = 0;
        while let Some(question) = all.get(index) {
            match self.one(question, known)? {
                Next::Following => index += 1,
                Next::StorageAgain => {
                    self.forget_storage(known);
                    index = 0;
                }
            }
        }
        Ok(())
    }

    fn one(&mut self, question: &'static Question, known: &mut Known<'_>) -> Result<Next, DialogueError> {
        // Those of the storage are needed to look at it; no answer file has them.
        if question.is_secret() && !self.with_secrets && question.section != Section::Storage {
            return Ok(Next::Following);
        }
        if let Some(look) = question.look
            && let Err(error) = self.look(look, known)
        {
            return Ok(self.wrong(error.to_string()));
        }
        if !(question.when.holds)(known) {
            return Ok(Next::Following);
        }
        let is_joined = self.join_holds && OF_JOIN.contains(&question.key);
        // The device is found by the hosted engine on it.
        let mut is_quiet = question.is_quiet || is_joined || (self.join_holds && question.key == keys::LUN);
        // An answer that was given and is wrong is asked for on a terminal, once it was said what is wrong with it.
        if let Some(text) = self.loaded.get(question.key).and_then(Value::typed) {
            match question.accept(known, &text) {
                Ok(text) => return Ok(keep(question, known, text)),
                Err(why) => {
                    let why = format!("{}: {why}", question.key);
                    let Some(asker) = &mut self.asker else {
                        self.lacking.wrong.push(why);
                        return Ok(Next::Following);
                    };
                    asker.error(&why);
                    is_quiet = false;
                }
            }
        }
        let proposal = match question.proposal(known).map(|text| question.accept(known, &text)) {
            Some(Err(why)) if is_joined => return Ok(self.wrong(format!("--join: {why}"))),
            other => other.and_then(Result::ok),
        };
        let text = match (&mut self.asker, proposal) {
            (Some(_), Some(proposal)) if is_quiet => proposal,
            (Some(_), proposal) => self.ask(question, known, proposal.as_deref())?,
            (None, Some(proposal)) => proposal,
            // A password that may be empty.
            (None, None) if question.if_empty.is_some() && question.accept(known, "").is_ok() => {
                String::new()
            }
            (None, None) => {
                let choices = (question.choices)(known);
                self.lacking.missing.push(Missing::of(question, choices));
                return Ok(Next::Following);
            }
        };
        Ok(keep(question, known, text))
    }

    /// The storage cannot be what was answered.
    fn wrong(&mut self, why: String) -> Next {
        if let Some(asker) = &mut self.asker {
            asker.error(&why);
            return Next::StorageAgain;
        }
        self.lacking.wrong.push(why);
        Next::Following
    }

    /// Asks until the answer is good.
    fn ask(
        &mut self,
        question: &'static Question,
        known: &Known<'_>,
        proposal: Option<&str>,
    ) -> Result<String, DialogueError> {
        let Some(asker) = &mut self.asker else { return Err(DialogueError::Cancelled) };
        if self.section != Some(question.section) {
            self.section = Some(question.section);
            asker.section(&question.section.to_string());
        }
        let choices = (question.choices)(known);
        show_choices(&mut **asker, &choices);
        let prompt = prompt(question, proposal, &choices);
        loop {
            let text = if question.is_secret() {
                let first = asker.hidden(&prompt)?;
                let is_empty = first.reveal().is_empty();
                if !is_empty && asker.hidden("Confirm it: ")? != first {
                    asker.error("The two are not the same. Please try again");
                    continue;
                }
                first.reveal().to_owned()
            } else {
                asker.line(&prompt)?
            };
            let text = match (text.trim(), proposal) {
                ("?", _) if !question.is_secret() => {
                    asker.tell(question.explanation);
                    show_choices(&mut **asker, &choices);
                    continue;
                }
                ("", Some(proposal)) => proposal.to_owned(),
                // Where something is proposed, Enter takes it.
                ("-", Some(_)) if question.if_empty.is_some() => String::new(),
                _ => text,
            };
            match question.accept(known, &text) {
                Ok(text) => return Ok(text),
                Err(why) => asker.error(&format!("{why}. Please try again")),
            }
        }
    }

    /// Finds out what the next questions are about. Nothing to do while it is not known where to look.
    fn look(&mut self, look: Look, known: &mut Known<'_>) -> Result<(), DialogueError> {
        // Where a block storage's devices are: the portals' target, or this host's own adapters.
        let is_reached = known.is(keys::DOMAIN_TYPE, "fc")
            || (known.is(keys::DOMAIN_TYPE, "iscsi") && known.get(keys::TARGET).is_some());
        let said = |key| self.loaded.get(key).and_then(Value::typed);
        let wanted = match look {
            // An answer file that says all that the portals could say spares asking them.
            Look::Targets => {
                let is_said = said(keys::TARGET).is_some() && said(keys::TPGT).is_some();
                known.is(keys::DOMAIN_TYPE, "iscsi") && known.get(keys::PORTALS).is_some() && !is_said
            }
            Look::Devices => is_reached && known.join.is_none(),
            Look::Clusters if known.is_block() => {
                is_reached && (known.join.is_some() || known.get(keys::LUN).is_some())
            }
            Look::Clusters => known.get(keys::CONNECTION).is_some(),
        };
        if !wanted {
            return Ok(());
        }
        let (mut storage, secrets) = (build::storage(known)?, build::secrets(known));
        match look {
            Look::Targets => {
                self.report.info("Discovering iSCSI targets");
                known.found.targets = self.storage.targets(&storage, &secrets)?;
            }
            Look::Devices => {
                self.report.info("Looking for LUNs");
                storage.lun = said(keys::LUN).map(|id| Lun { id, bytes: 0 });
                known.found.devices = self.storage.devices(&storage, &secrets)?;
                if known.found.devices.is_empty() {
                    return Err(DialogueError::Storage("there is no LUN on this storage".to_owned()));
                }
            }
            Look::Clusters => {
                self.report.info("Looking at the storage");
                known.found.clusters = self.storage.clusters(&storage, &secrets)?;
                let said = self.loaded.get(keys::JOIN) == Some(&Value::Bool(true));
                if known.found.clusters.is_empty() && (known.join.is_some() || said) {
                    return Err(DialogueError::Storage(format!(
                        "there is no hosted engine on {}: nothing to join",
                        build::place(&storage)
                    )));
                }
            }
        }
        Ok(())
    }

    fn forget_storage(&mut self, known: &mut Known<'_>) {
        for question in questions::all().filter(|question| question.section == Section::Storage) {
            known.given.remove(question.key);
            known.secrets.remove(question.key);
            self.loaded.remove(question.key);
        }
        known.found = Found::default();
        self.join_holds = false;
    }

    fn is_confirmed(&mut self) -> Result<bool, DialogueError> {
        match self.loaded.get(keys::CONFIRM) {
            None | Some(Value::None) => Ok(false),
            Some(value) => {
                let text = value.typed().unwrap_or_default();
                match ha_config::text::parse_bool(&text) {
                    Some(true) => Ok(true),
                    Some(false) => Err(DialogueError::Declined(keys::CONFIRM)),
                    None => {
                        self.lacking.wrong.push(format!("{}: {text:?} must be yes or no", keys::CONFIRM));
                        Ok(false)
                    }
                }
            }
        }
    }

    /// The answers for another time, and the preview.
    fn said(&self, known: &Known<'_>) -> (Answers, Vec<Row>) {
        let (mut answers, mut preview) = (Answers::default(), Vec::new());
        // What nothing here knows may be for others who read the same file.
        for (key, value) in self.loaded.iter() {
            let is_ours = questions::find(key).is_some() || keys::CONFIRMATIONS.contains(&key);
            if !is_ours && !matches!(value, Value::Secret(_)) {
                answers.set(key, value.clone());
            }
        }
        for question in questions::all() {
            if let Some(secret) = known.secrets.get(question.key) {
                preview.push(Row::secret(question));
                answers.set(question.key, Value::Secret(secret.clone()));
            }
            let Some(text) = known.given.get(question.key) else { continue };
            if !question.is_quiet || !text.is_empty() {
                preview.push(Row::answer(question, text));
            }
            let is_implied = question.is_of_host && question.proposal(known).as_ref() == Some(text);
            if !is_implied {
                answers.set(question.key, question.value(text));
            }
        }
        (answers, preview)
    }

    fn finish(self, known: &Known<'_>, is_confirmed: bool) -> Result<Asked, DialogueError> {
        let (answers, preview) = self.said(known);
        let cluster = known.cluster().filter(|_| known.is_join()).cloned();
        let request = build::request(known)?;
        let next_id = cluster.as_ref().and_then(|cluster| cluster.next_id);
        Ok(Asked {
            id_is_proposed: self.loaded.get(keys::HOST_ID).is_none() && next_id == Some(request.host().id),
            request,
            secrets: build::secrets(known),
            answers,
            preview,
            cluster,
            is_confirmed,
        })
    }
}

fn keep(question: &Question, known: &mut Known<'_>, text: String) -> Next {
    if !question.is_secret() {
        known.given.insert(question.key, text);
    } else if !text.is_empty() {
        known.secrets.insert(question.key, Secret::new(text));
    }
    Next::Following
}

fn show_choices(asker: &mut dyn Asker, choices: &[Choice]) {
    for (number, choice) in choices.iter().enumerate().filter(|(_, choice)| !choice.about.is_empty()) {
        asker.tell(&format!("[{}] {}  {}", number + 1, choice.value, choice.about));
    }
}

/// `Please specify … (a, b) [a]: `
fn prompt(question: &Question, proposal: Option<&str>, choices: &[Choice]) -> String {
    let words: Vec<_> = match question.form {
        Form::Word(words) => words.to_vec(),
        Form::Bool => vec!["yes", "no"],
        _ if choices.iter().all(|choice| choice.about.is_empty()) => {
            choices.iter().map(|choice| choice.value.as_str()).collect()
        }
        _ => Vec::new(),
    };
    let words = if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) };
    let proposal = match proposal {
        Some("") | None => String::new(),
        Some(text) if question.if_empty.is_some() => format!(" [{text}, - for none]"),
        Some(text) => format!(" [{text}]"),
    };
    format!("{}{words}{proposal}: ", question.prompt)
}
